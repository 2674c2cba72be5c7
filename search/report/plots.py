"""The front as a table and as an interactive plot.

Plotly is imported only when a plot is made, as that takes half a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from search.report.timings import describe_timings, format_time
from search.study.records import Objectives, Record, State, front
from spaces.architecture import describe, format_value, pattern, short_settings
from spaces.baselines import BaselineResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's palette for colour-blind readers; symbols repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "triangle-down", "star", "hexagon")
GREY = "#9A9A9A"
_TICKS = [digit * 10.0**power for power in range(-4, 13) for digit in (1, 2, 5)]
_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"t": 90, "l": 70, "r": 20, "b": 60},
    "xaxis": {"type": "log", "tickvals": _TICKS, "ticktext": [f"{tick:,g}" for tick in _TICKS], "ticks": "outside"},
    "yaxis": {"ticks": "outside"},
    "legend": {"title": {"text": "<b>front</b>, by mechanism"}, "traceorder": "reversed"},
    "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"family": "monospace", "color": "#222222"}},
}


def mechanism(architecture: Mapping[str, Any]) -> str:
    """The mechanisms in an architecture, each once and in alphabetical order: ``longformer+softmax``."""
    return "+".join(sorted(set(architecture.get("pattern", ()))))


def table_rows(records: Sequence[Record], objectives: Objectives) -> list[dict[str, Any]]:
    """One row per record: number, metric, all costs, and the architecture in one cell.

    Numbers are rounded to five digits, more than the accuracy of measurements.
    """
    return [
        {
            "trial": record.number,
            objectives.metric: _rounded(record.metric),
            **{name: _rounded(record.costs[name]) for name in objectives.costs},
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
    lines = ["| " + " | ".join(map(markdown_text, rows[0])) + " |", "|" + " --- |" * len(rows[0])]
    room = limit - sum(len(line) + 1 for line in lines) - 40
    for shown, row in enumerate(rows):
        line = "| " + " | ".join(markdown_text(_short(value)) for value in row.values()) + " |"
        room -= len(line) + 1
        if room < 0:
            return "\n".join([*lines, "", f"... and {len(rows) - shown} more."])
        lines.append(line)
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """``text`` in Markdown, in which it is no link, HTML, code or table: users name metrics, mechanisms and values."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def html(
    records: Sequence[Record], objectives: Objectives, *, title: str, baselines: Sequence[BaselineResult] = ()
) -> str:
    """The plot as an HTML page that includes Plotly's script (4.8 MB), to open without a network."""
    page: str = plot(records, objectives, title=title, baselines=baselines).to_html(
        include_plotlyjs=True, default_height="96vh", config={"displaylogo": False}
    )
    return page


def plot(
    records: Sequence[Record], objectives: Objectives, *, title: str, baselines: Sequence[BaselineResult] = ()
) -> Figure:
    """The metric of every trial against the first cost, the front coloured by mechanism, and a line per baseline."""
    import plotly.graph_objects as go

    cost = objectives.costs[0]
    members = front(records, objectives)
    numbers = {record.number for record in members}
    figure = go.Figure()

    def add(name: str, shown: Sequence[Record], **marker: Any) -> None:
        # Of a stopped trial the last metric is shown, which the pruner used.
        figure.add_scatter(
            name=f"{escape(name)} ({len(shown)})",
            mode="markers",
            x=[record.costs[cost] for record in shown],
            y=[record.last_metric for record in shown],
            marker=marker,
            hovertext=[_hover(record, objectives) for record in shown],
            hoverinfo="text",
        )

    visible = [record for record in records if cost in record.costs and record.last_metric is not None]
    dominated = [record for record in visible if record.state == State.COMPLETE and record.number not in numbers]
    stopped = [record for record in visible if record.state in (State.PRUNED, State.PAUSED)]
    add("stopped", stopped, color=GREY, symbol="x-thin-open", size=7)
    add("dominated", dominated, color=GREY, size=8, opacity=0.6)
    # With one cost the line is the best metric up to each cost; with several it would cross points.
    if len(objectives.costs) == 1 and members:
        figure.add_scatter(
            x=[*(record.costs[cost] for record in members), max(record.costs[cost] for record in visible)],
            y=[*(record.metric for record in members), members[-1].metric],
            mode="lines",
            line={"shape": "hv", "color": "#444444", "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        )
    for index, name in enumerate(sorted({mechanism(record.architecture) for record in visible})):
        style = {"color": COLOURS[index % len(COLOURS)], "symbol": SYMBOLS[index % len(SYMBOLS)]}
        shown = [record for record in members if mechanism(record.architecture) == name]
        if shown:
            add(name, shown, size=13, line={"color": "white", "width": 1}, **style)
    for baseline in baselines:
        metric = baseline.metrics[objectives.metric]
        figure.add_hline(
            y=metric,
            line={"color": GREY, "width": 1, "dash": "dot"},
            annotation={"text": escape(f"{baseline.name} {_short(metric)}"), "font": {"color": "#666666"}},
            annotation_position="bottom right",
        )
    timings = describe_timings(members, [record for record in visible if record.state != State.RUNNING], objectives)
    note = f"<br>{timings}" if timings and cost == "latency_ms" else ""
    figure.update_layout(
        _LAYOUT,
        title={
            "text": f"{escape(title)}: {escape(objectives.metric)} against {cost}",
            "subtitle": {"text": f"{len(visible)} trials, {len(members)} on the front; hover for details{note}"},
        },
        xaxis={"title": {"text": cost}},
        yaxis={"title": {"text": escape(objectives.metric)}},
    )
    return figure


def _hover(record: Record, objectives: Objectives) -> str:
    ending = f" when {record.state}" if record.state in (State.PRUNED, State.PAUSED) else ""
    values = {objectives.metric: f"{_short(record.last_metric)}{ending}"}
    values |= {name: _short(value) for name, value in record.costs.items()}
    if record.timing:
        values["latency measured"] = format_time(record.timing.at)
    values |= {name: format_value(value) for name, value in short_settings(record.architecture).items()}
    lines = [f"<b>trial {record.number}: {escape(pattern(record.architecture))}</b>"]
    return "<br>".join(lines + [f"{escape(name)} {escape(value)}" for name, value in values.items()])


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
