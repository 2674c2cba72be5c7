"""Tags, parameters and metrics of a trial and of a baseline, as plain values independent of MLflow."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from search.config import hide_passwords
from search.report import rows
from search.report.answers import with_test
from search.report.endings import describe_ending
from search.report.explain import dominating
from search.study.records import Objectives, Record, State
from spaces.architecture import brief, pattern, settings
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


def trial_name(record: Record, dimensions: Collection[str] | None) -> str:
    """The name of a trial's run in lists, with the dimensions of its mechanism: ``#12 longformer 4x128 window=64``."""
    names = settings(record.architecture) if dimensions is None else dimensions
    shown = {name for name in names if name.startswith("attention.")}
    return f"#{record.number} {brief(record.architecture, shown)}".strip()[:NAME_LIMIT]


def parameters(architecture: Mapping[str, Any], dimensions: Collection[str] | None) -> dict[str, Any]:
    """The parameters of a trial's run: the mechanism and, of the settings, the dimensions of the space.

    MLflow's views for comparing runs begin with the parameters that are first in the alphabet. So the mechanism is
    named ``attention``, and the settings of a mechanism, which only some trials have, ``setting.linformer.rank``.
    """
    kept = {name: value for name, value in settings(architecture).items() if dimensions is None or name in dimensions}
    short = [name.rpartition(".")[2] for name in kept if not name.startswith("attention.")]
    found: dict[str, Any] = {}
    for name, value in kept.items():
        section, _, rest = name.partition(".")
        if section == "attention":
            found[f"setting.{rest}"] = value
        else:
            last = name.rpartition(".")[2]
            found[last if short.count(last) == 1 and last != "attention" else name] = value
    return {"attention": pattern(architecture), **found}


def trial_data(
    record: Record,
    objectives: Objectives,
    dimensions: Collection[str] | None = None,
    others: Mapping[int, Record] = MappingProxyType({}),
    addresses: Mapping[int, str] = MappingProxyType({}),
) -> RunData:
    """Data of a trial that has ended: learning curve, costs, final metric, architecture and state.

    Of a stopped trial also the rung and the better trials as tags, and the pruner's threshold as a metric.

    Args:
        record: the trial.
        objectives: the metric and the costs.
        dimensions: dotted names of the dimensions of the space; None for all settings.
        others: the study, by number.
        addresses: of the runs of other trials in the UI, by number.
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
        "mechanism": rows.mechanism(record.architecture),
        "reason": record.reason,
        "rung": "" if stop is None else str(stop.epoch),
        "beaten_by": "" if stop is None else ", ".join(map(str, stop.beaten_by)),
        "worker": record.worker,
    }
    params = parameters(record.architecture, dimensions)
    shown = {sanitize(name): hide_passwords(text)[:TEXT_LIMIT] for name, text in tags.items() if text}
    return RunData(
        tags={**shown, "mlflow.note.content": trial_note(record, objectives, others, addresses)},
        params={sanitize(name): str(value)[:TEXT_LIMIT] for name, value in params.items()},
        values=values,
    )


def trial_note(
    record: Record, objectives: Objectives, others: Mapping[int, Record], addresses: Mapping[int, str]
) -> str:
    """What became of a trial, in Markdown: in words, the whole reason of a stop, and links to the better trials."""
    cost = objectives.costs[0]
    if record.state == State.COMPLETE:
        text = f"complete: {objectives.metric} {with_test(record, objectives)}"
        lines = [rows.markdown_text(text + (f" at {cost} {record.costs[cost]:.4g}" if cost in record.costs else ""))]
        beaten_by: Sequence[int] = [each.number for each in dominating(record, others.values(), objectives)]
    else:
        lines = [rows.markdown_text(hide_passwords(describe_ending(record, others, objectives)))]
        beaten_by = () if record.stop is None else record.stop.beaten_by
        if beaten_by:  # otherwise it is in the first line
            lines.append(f"Reason: {rows.markdown_text(record.reason)}")
    if links := [f"[#{number}]({addresses[number]})" for number in beaten_by if number in addresses]:
        lines.append(f"Better: {' '.join(links)}")
    return "\n\n".join(lines)[:NOTE_LIMIT]


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
