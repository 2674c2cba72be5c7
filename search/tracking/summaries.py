"""What a tracker is told of a trial and of a study: plain values, decided here, without a tracker at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from search.report import plots as pictures
from search.study.records import Objectives, Record, State, front
from spaces.architecture import pattern, settings

NAME_LIMIT = 250  # characters
TEXT_LIMIT = 500  # every MLflow server takes that many in a tag or a parameter
NOTE_LIMIT = 5000


class Value(NamedTuple):
    """One point of a metric."""

    name: str
    value: float
    step: int
    seconds: float = 0.0  # since the trial began


@dataclass(frozen=True)
class Summary:
    """What a run shows."""

    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    values: Sequence[Value] = ()


def of_trial(record: Record, objectives: Objectives) -> Summary:
    """A trial that ended: its curve by epoch, its costs and final metric, its architecture, and how it ended.

    Of a stop: the rung and who was better as tags, the metric that would have sufficed as a metric at that rung.
    """
    measured = {
        "training_s": record.training_s,
        "latency_s": record.latency_s,
        "training_overhead": record.overhead,
        "latency_spread": record.timing.spread if record.timing else 0.0,
    }
    measured = {name: value for name, value in measured.items() if value}
    measured |= {f"test_{name}": value for name, value in record.test_metrics.items()}
    curve = dict(record.curve)  # of an epoch that stands there twice the later entry counts
    pace = seconds(record) / max(curve, default=1)
    values = [Value(accepted(objectives.metric), metric, epoch, epoch * pace) for epoch, metric in curve.items()]
    # A pruned trial's curve ends too: what trials are compared by needs a name of its own.
    final = {} if record.metric is None else {f"final_{objectives.metric}": record.metric}
    values += [Value(accepted(name), float(value), 0) for name, value in {**final, **record.costs, **measured}.items()]
    stop = record.stop
    if stop is not None and stop.threshold is not None:
        name = accepted(f"threshold_{objectives.metric}")
        values.append(Value(name, stop.threshold, stop.epoch, stop.epoch * pace))
    tags = {
        "trial": str(record.number),
        "state": record.state,
        "mechanism": pictures.mechanism(record.architecture),
        "reason": record.reason,
        "rung": "" if stop is None else str(stop.epoch),
        "beaten_by": "" if stop is None else ", ".join(map(str, stop.beaten_by)),
        "worker": record.worker,
    }
    params = {"pattern": pattern(record.architecture), **settings(record.architecture)}
    return Summary(
        tags={accepted(name): without_password(text)[:TEXT_LIMIT] for name, text in tags.items() if text},
        params={accepted(name): str(value)[:TEXT_LIMIT] for name, value in params.items()},
        values=values,
    )


def accepted(name: str) -> str:
    """``name`` with what MLflow accepts in names alone; users name their own metrics and mechanisms."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:NAME_LIMIT]


def seconds(record: Record) -> float:
    """How long a trial was worked on."""
    return record.training_s + record.latency_s


def of_study(records: Sequence[Record], objectives: Objectives, links: Mapping[str, str]) -> Summary:
    """How far a study is and how good: counts, hypervolume, and the front in a note with ``links``.

    A step of its metrics is a trial that ended.
    """
    states = [record.state for record in records]
    counts = {str(state): states.count(state) for state in (State.COMPLETE, State.PAUSED, State.PRUNED, State.FAILED)}
    ended = sum(counts.values())
    members = front(records, objectives)
    share = objectives.hypervolume(members)
    numbers = {"hypervolume": share, "front_size": len(members), **counts}
    arrow = "↑" if objectives.direction == "maximize" else "↓"
    head = "\n\n".join(
        (
            f"**{objectives.metric} {arrow} against {', '.join(f'{cost} ↓' for cost in objectives.costs)}** · "
            f"{ended} trials: {', '.join(f'{count} {state}' for state, count in counts.items())} · "
            f"hypervolume {share:.4f} of 1",
            " · ".join(f"[{name}]({address})" for name, address in links.items()),
            "",
        )
    )
    table = pictures.markdown(pictures.table(members, objectives), limit=NOTE_LIMIT - len(head))
    return Summary(
        tags={"ended": str(ended), "mlflow.note.content": without_password(head + table)},
        values=[Value(name, float(value), ended) for name, value in numbers.items()],
    )


def without_password(text: str) -> str:
    """``text`` with the password of every address in it replaced: ``postgresql://me:***@host/db``."""
    return re.sub(r"(://[^/:@\s]*):[^@\s]*@", r"\1:***@", text)
