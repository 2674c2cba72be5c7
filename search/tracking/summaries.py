"""Tags, parameters and metrics of a trial and of a study, as plain values independent of MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from search.config import hide_passwords
from search.report import plots
from search.report.answers import Description, answers, in_short, next_commands
from search.report.baselines import best_baseline, describe_baselines, describe_defeat
from search.report.timings import describe_timings
from search.study.records import Objectives, Record, State, front
from spaces.architecture import pattern, settings
from spaces.baselines import BaselineResult

NAME_LIMIT = 250  # characters
OF_STOPS = ("reason", "rung", "beaten_by")  # tags that only some trials have
TEXT_LIMIT = 500  # every MLflow server takes that many in a tag or a parameter
NOTE_LIMIT = 5000


class MetricValue(NamedTuple):
    """A value of a metric at a step."""

    name: str
    value: float
    step: int
    seconds: float = 0.0  # since the start of the trial


@dataclass(frozen=True)
class RunData:
    """The data of an MLflow run."""

    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    values: Sequence[MetricValue] = ()


def trial_data(record: Record, objectives: Objectives) -> RunData:
    """Data of a trial that has ended: learning curve, costs, final metric, architecture and state.

    Of a stopped trial also the rung and the better trials as tags, and the pruner's threshold as a metric.
    """
    measured = {
        "training_s": record.training_s,
        "latency_s": record.latency_s,
        "training_overhead": record.overhead,
        "latency_spread": record.timing.spread if record.timing else 0.0,
    }
    measured = {name: value for name, value in measured.items() if value}
    measured |= _by_split(record.validation_metrics, record.test_metrics)
    curve = dict(record.curve)  # the later entry of a repeated epoch counts
    epoch_s = seconds(record) / max(curve, default=1)
    values = [
        MetricValue(sanitize(objectives.metric), metric, epoch, epoch * epoch_s) for epoch, metric in curve.items()
    ]
    # Pruned trials have the metric too, at earlier epochs: the final one needs a name of its own.
    final = {} if record.metric is None else {f"final_{objectives.metric}": record.metric}
    values += [  # of a trial that goes on after a pause the later ones count, by their time
        MetricValue(sanitize(name), float(value), 0, seconds(record))
        for name, value in {**final, **record.costs, **measured}.items()
    ]
    stop = record.stop
    if stop is not None and stop.threshold is not None:
        name = sanitize(f"threshold_{objectives.metric}")
        values.append(MetricValue(name, stop.threshold, stop.epoch, stop.epoch * epoch_s))
    tags = {
        "trial": str(record.number),
        "state": record.state,
        "epochs": str(record.epochs),
        "mechanism": plots.mechanism(record.architecture),
        "reason": record.reason,
        "rung": "" if stop is None else str(stop.epoch),
        "beaten_by": "" if stop is None else ", ".join(map(str, stop.beaten_by)),
        "worker": record.worker,
    }
    params = {"pattern": pattern(record.architecture), **settings(record.architecture)}
    return RunData(
        tags={sanitize(name): hide_passwords(text)[:TEXT_LIMIT] for name, text in tags.items() if text},
        params={sanitize(name): str(value)[:TEXT_LIMIT] for name, value in params.items()},
        values=values,
    )


def _by_split(validation: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
    """Metrics with the name of their split in front."""
    splits = {"validation": validation, "test": test}
    return {f"{split}_{name}": value for split, metrics in splits.items() for name, value in metrics.items()}


def baseline_data(baseline: BaselineResult, objectives: Objectives) -> RunData:
    """Data of a baseline, with the metrics that trials have."""
    numbers = {f"final_{objectives.metric}": baseline.metrics[objectives.metric], "latency_ms": baseline.latency_ms}
    numbers |= _by_split(baseline.metrics, baseline.test_metrics)
    return RunData(
        tags={"state": "baseline", "mechanism": baseline.name},
        values=[MetricValue(sanitize(name), float(value), 0) for name, value in numbers.items()],
    )


def sanitize(name: str) -> str:
    """``name`` with characters that MLflow does not allow replaced; users name metrics and mechanisms."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:NAME_LIMIT]


def seconds(record: Record) -> float:
    """The duration of a trial: training and measuring latency."""
    return record.training_s + record.latency_s


def study_data(
    records: Sequence[Record],
    objectives: Objectives,
    links: Mapping[str, str],
    baselines: Sequence[BaselineResult] = (),
    description: Description | None = None,
) -> RunData:
    """Data of a study: number of trials by state, hypervolume, best baseline, and the note.

    The note says what was found and, with a ``description``, what was searched and what to do next, and has the front
    as a table. The step of the metrics is the number of trials that have ended.
    """
    states = [record.state for record in records]
    counts = {str(state): states.count(state) for state in (State.COMPLETE, State.PAUSED, State.PRUNED, State.FAILED)}
    ended = sum(counts.values())
    members = front(records, objectives)
    share = objectives.hypervolume(members)
    numbers = {"hypervolume": share, "front_size": len(members), **counts}
    tags = {"ended": str(ended)}
    if best := best_baseline(baselines, objectives):
        tags["baseline"] = best.name
        numbers |= {sanitize(f"baseline_{name}"): value for name, value in best.metrics.items()}
        numbers |= {sanitize(f"baseline_test_{name}"): value for name, value in best.test_metrics.items()}
        numbers["baseline_latency_ms"] = best.latency_ms
    arrow = "↑" if objectives.direction == "maximize" else "↓"
    dimensions = None if description is None else description.dimensions
    lines = (
        *answers(records, objectives, baselines, dimensions),
        describe_baselines(baselines, objectives),
        describe_defeat(members, baselines, objectives),
        describe_timings(members, records, objectives),
    )
    short = () if description is None else in_short(description, members, objectives, baselines)
    head = "\n\n".join(
        (
            *(["\n".join(f"- **{name}:** {plots.markdown_text(text)}" for name, text in short)] if short else []),
            f"**{plots.markdown_text(objectives.metric)} {arrow} against "
            f"{', '.join(f'{cost} ↓' for cost in objectives.costs)}** · "
            f"{ended} trials: {', '.join(f'{count} {state}' for state, count in counts.items())} · "
            f"hypervolume {share:.4f} of 1",
            *map(plots.markdown_text, filter(None, lines)),
            *([] if description is None else _sections(description, members)),
            " · ".join(f"[{name}]({address})" for name, address in links.items()),
            "",
        )
    )
    table = plots.markdown(plots.table_rows(members, objectives), limit=NOTE_LIMIT - len(head))
    return RunData(
        tags={**tags, "mlflow.note.content": hide_passwords(head + table)},
        values=[MetricValue(name, float(value), ended) for name, value in numbers.items()],
    )


def _sections(description: Description, members: Sequence[Record]) -> list[str]:
    """What was searched and what to do next, as Markdown."""
    question = "; ".join(f"{name}: {plots.markdown_text(value)}" for name, value in description.rows if value)
    commands = "\n".join(f"# {what}\n{command}" for what, command in next_commands(description, members))
    return [f"**Searched.** {question}.", f"**Next.**\n\n```sh\n{commands.replace('```', '')}\n```"]
