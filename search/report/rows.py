"""Trials as rows of tables: in the terminal, on the page, in MLflow and in files; and as the details of a plot."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from search.report.timings import format_time
from search.study.records import Objectives, Record, State
from spaces.architecture import describe, format_value, pattern, short_settings
from spaces.baselines import BaselineResult
from spaces.evaluation import margin_name

BASELINE = "baseline"  # in the place of a trial's number


def mechanism(architecture: Mapping[str, Any]) -> str:
    """The mechanisms in an architecture, each once and in alphabetical order: ``longformer+softmax``."""
    return "+".join(sorted(set(architecture.get("pattern", ()))))


def front_rows(
    members: Sequence[Record],
    objectives: Objectives,
    dimensions: Collection[str] | None,
    *,
    baselines: Sequence[BaselineResult] = (),
) -> list[dict[str, str]]:
    """The members of a front, then the baselines, as cells by column; a row lacks the columns that it has no value of.

    Behind a latency stands the spread of its measurement, behind a share on the test split the margin that is due to
    its size.

    Args:
        members: by ascending cost.
        objectives: the metric and the costs.
        dimensions: dotted names of the settings to show; None for all.
        baselines: results of the task's baselines.
    """
    measured = any(member.timing and member.timing.reference_ms for member in members)
    rows = [_member_row(member, objectives, dimensions) for member in members]
    return rows + [_baseline_row(each, objectives, measured=measured) for each in baselines]


def _member_row(member: Record, objectives: Objectives, dimensions: Collection[str] | None) -> dict[str, str]:
    row = {"trial": str(member.number)}
    for name in objectives.costs:
        spread = f" ±{member.timing.spread:.1%}" if name == "latency_ms" and member.timing else ""
        row[name] = f"{member.costs[name]:.4g}{spread}"
    if member.timing and member.timing.runtimes_ms:
        row["run-time"] = member.timing.runtime
    row[objectives.metric] = f"{member.metric:.4f}"
    row |= _on_test(member.test_metrics, objectives)
    if "parameters" in member.costs:
        row["parameters"] = f"{member.costs['parameters']:.0f}"
    row["architecture"] = describe(member.architecture, dimensions)
    return row


def _baseline_row(baseline: BaselineResult, objectives: Objectives, *, measured: bool) -> dict[str, str]:
    """Its latency is left out where that of networks is computed, not ``measured``."""
    row = {"trial": BASELINE, objectives.metric: f"{baseline.metrics[objectives.metric]:.4f}"}
    row |= {"architecture": baseline.name, **_on_test(baseline.test_metrics, objectives)}
    return row | ({"latency_ms": f"{baseline.latency_ms:.4g}"} if measured else {})


def _on_test(test_metrics: Mapping[str, float], objectives: Objectives) -> dict[str, str]:
    text = with_margin(test_metrics, objectives)
    return {"on test": text} if text else {}


def with_margin(test_metrics: Mapping[str, float], objectives: Objectives) -> str:
    """The metric on the test split with the margin of its 95 % interval, if it has one; empty without a metric."""
    if objectives.metric not in test_metrics:
        return ""
    half = test_metrics.get(margin_name(objectives.metric))
    return f"{test_metrics[objectives.metric]:.4f}" + ("" if half is None else f" ±{half:.2g}")


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of all rows, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row))


def table_rows(records: Sequence[Record], objectives: Objectives) -> list[dict[str, Any]]:
    """One row per record for programs: number, metric, test metric, all costs, and the architecture in one cell.

    Numbers are rounded to five digits, more than the accuracy of measurements.
    """
    return [
        {
            "trial": record.number,
            objectives.metric: _rounded(record.metric),
            "on test": _rounded(record.test_metrics.get(objectives.metric)),
            **{name: _rounded(record.costs[name]) for name in objectives.costs},
            "latency_spread": _rounded(record.timing.spread) if record.timing else None,
            **{name: _rounded(value) for name, value in record.costs.items() if name not in objectives.costs},
            "architecture": describe(record.architecture),
        }
        for record in records
    ]


def export_rows(members: Sequence[Record], objectives: Objectives) -> list[dict[str, Any]]:
    """The members of a front with all metrics and costs, unrounded, and architectures that can be built."""
    return [
        {
            "trial": member.number,
            objectives.metric: member.metric,
            f"test_{objectives.metric}": member.test_metrics.get(objectives.metric),
            **member.costs,
            **{f"validation_{name}": value for name, value in member.validation_metrics.items()},
            **{f"test_{name}": value for name, value in member.test_metrics.items()},
            "architecture": dict(member.architecture),
        }
        for member in members
    ]


def markdown(rows: Sequence[Mapping[str, Any]], *, limit: int) -> str:
    """The rows as a Markdown table of at most ``limit`` characters, with the number of omitted rows."""
    if not rows:
        return "No trial is complete yet."
    names = columns(rows)
    lines = ["| " + " | ".join(map(markdown_text, names)) + " |", "|" + " --- |" * len(names)]
    room = limit - sum(len(line) + 1 for line in lines) - 40
    for shown, row in enumerate(rows):
        line = "| " + " | ".join(markdown_text(_short(row.get(name, ""))) for name in names) + " |"
        room -= len(line) + 1
        if room < 0:
            return "\n".join([*lines, "", f"... and {len(rows) - shown} more."])
        lines.append(line)
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """``text`` in Markdown, in which it is no link, HTML, code or table: users name metrics, mechanisms and values."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def details(record: Record, objectives: Objectives) -> str:
    """All that is worth knowing of a trial's point in a plot, a line each."""
    ending = f" when {record.state}" if record.state in (State.PRUNED, State.PAUSED) else ""
    values = {objectives.metric: f"{_short(record.last_metric)}{ending}"}
    if (test := record.test_metrics.get(objectives.metric)) is not None:
        values["on test"] = _short(test)
    values |= {name: _short(value) for name, value in record.costs.items()}
    if record.timing:
        values["latency measured"] = format_time(record.timing.at)
    values |= {name: format_value(value) for name, value in short_settings(record.architecture).items()}
    lines = [f"trial {record.number}: {pattern(record.architecture)}"]
    return "\n".join(lines + [f"{name} {value}" for name, value in values.items()])


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
