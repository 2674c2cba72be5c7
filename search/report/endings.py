"""How a trial ended, in plain words: ``paused after 7 of 9 epochs; 0, 3 and 5 do better at no higher latency``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from search.config import COSTS
from search.study.records import Objectives, Record, State

CUT = " ..."  # in the place of words
MAX_LISTED = 3  # better trials


def describe_ending(trial: Record, others: Mapping[int, Record], objectives: Objectives) -> str:
    """How a trial ended, in one clause; empty of one that is complete or runs."""
    return _wordings(trial, others, objectives)[0]


def shortened_ending(trial: Record, others: Mapping[int, Record], objectives: Objectives, *, width: int) -> str:
    """The same in at most ``width`` characters, with as many details as fit."""
    wordings = _wordings(trial, others, objectives)
    return next((each for each in wordings if len(each) <= width), cut(wordings[-1], width))


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters, without the words that do not fit."""
    if len(text) <= width:
        return text
    words = text[: max(0, width - len(CUT) + 1)].rpartition(" ")[0].rstrip(" ,;:")
    return words + CUT if words else text[:width]


def _wordings(trial: Record, others: Mapping[int, Record], objectives: Objectives) -> list[str]:
    """How a trial ended, in several wordings: that with all details first, that with the fewest last."""
    if trial.state == State.FAILED:
        return [f"failed: {trial.error}"]
    if trial.state not in (State.PAUSED, State.PRUNED):
        return [f"{trial.state}: {trial.reason}" if trial.reason else ""]
    planned = trial.architecture.get("train", {}).get("epochs")
    word = "paused" if trial.state == State.PAUSED else "stopped"
    when: tuple[str, ...] = ("not trained",)
    if trial.epochs:
        when = f"{word} after {trial.epochs} of {planned} epochs", f"{word} after {trial.epochs}/{planned}"
    stop = trial.stop
    if stop is not None and stop.beaten_by:
        numbers = stop.beaten_by
        cheaper = _no_costlier(trial, [others[number] for number in numbers if number in others], objectives)
        do = "do" if len(numbers) > 1 else "does"
        named = [
            _listed(numbers),
            *([f"{numbers[0]} and {len(numbers) - 1} more"] if len(numbers) > MAX_LISTED else []),
        ]
        why = [f"; {each} {do} better{how}" for how in dict.fromkeys((cheaper, "")) for each in named]
        why.append(f"; {numbers[0]} does better")
    else:
        reason = trial.reason.removeprefix(f"epoch {trial.epochs}: ").removeprefix("before training: ")
        reason = re.sub(rf"^{re.escape(objectives.metric)} [^ ,]+, ", "", reason)  # it has a column of its own
        # Without its last clauses a reason is still one.
        ends = [end.start() for end in re.finditer(r"[,;:] | \(|$", reason)] if reason else []
        why = [f": {reason[:end]}" for end in reversed(ends)]
    return [start + rest for rest in (*why, "") for start in when]


def _listed(numbers: Sequence[int]) -> str:
    """``0, 3 and 5``, or ``0, 3, 5 and 2 more``."""
    shown = [str(number) for number in numbers[:MAX_LISTED]]
    if len(numbers) > MAX_LISTED:
        shown.append(f"{len(numbers) - MAX_LISTED} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _no_costlier(trial: Record, better: Sequence[Record], objectives: Objectives) -> str:
    """That the better trials have no higher costs, if they have, as now measured or as when the trial was stopped."""
    names = objectives.costs
    if not better or (
        "no higher cost" not in trial.reason
        and not all(other.costs.get(name, 0.0) <= trial.costs.get(name, 0.0) for other in better for name in names)
    ):
        return ""
    return f" at no higher {COSTS[names[0]].words if len(names) == 1 else 'costs'}"
