"""How a trial ended, in plain words: ``paused after 7 of 9 epochs; 0, 3 and 5 do better at no higher latency``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.study.records import Objectives, Record, State

MAX_LISTED = 3  # better trials
COST_WORDS = {"latency_ms": "latency", "parameters": "number of parameters", "flops": "FLOPs", "memory_mb": "memory"}


def describe_ending(trial: Record, others: Mapping[int, Record], objectives: Objectives) -> str:
    """How a trial ended, in one clause; empty of one that is complete or runs."""
    return _wordings(trial, others, objectives)[0]


def shortened_ending(trial: Record, others: Mapping[int, Record], objectives: Objectives, *, width: int) -> str:
    """The same in at most ``width`` characters: with fewer details, and at last cut."""
    wordings = _wordings(trial, others, objectives)
    return next((each for each in wordings if len(each) <= width), cut(wordings[-1], width))


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def _wordings(trial: Record, others: Mapping[int, Record], objectives: Objectives) -> list[str]:
    """How a trial ended, the longest wording first."""
    if trial.state == State.FAILED:
        return [f"failed: {trial.error}"]
    if trial.state not in (State.PAUSED, State.PRUNED):
        return [f"{trial.state}: {trial.reason}" if trial.reason else ""]
    planned = trial.architecture.get("train", {}).get("epochs")
    word = "paused" if trial.state == State.PAUSED else "stopped"
    when = f"{word} after {trial.epochs} of {planned} epochs" if trial.epochs else "not trained"
    stop = trial.stop
    if stop is None or not stop.beaten_by:
        reason = trial.reason.removeprefix(f"epoch {trial.epochs}: ").removeprefix("before training: ")
        return [f"{when}: {reason}" if reason else when]
    numbers = stop.beaten_by
    cheaper = _no_costlier(trial, [others[number] for number in numbers if number in others], objectives)
    do = "do" if len(numbers) > 1 else "does"
    more = f"{numbers[0]} and {len(numbers) - 1} more" if len(numbers) > 1 else str(numbers[0])
    listed = {f"{when}; {_listed(numbers)} {do} better{cheaper}": None, f"{when}; {more} {do} better{cheaper}": None}
    shorter = f"{when}; {_listed(numbers)} {do} better", f"{when}; {more} {do} better"
    return [*listed, *shorter, f"{when}; {numbers[0]} does better", when]


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
    return f" at no higher {COST_WORDS[names[0]] if len(names) == 1 else 'costs'}"
