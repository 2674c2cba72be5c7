"""An HTML page of a comparison: result tables, regret curves and a critical-difference diagram, in one offline file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from search.pareto import Floats
from search.replay.simulation import Outcome
from search.replay.statistics import average_ranks, group, regret
from search.report.colours import COLOURS

DASHES = ("solid", "dash", "dot", "dashdot")


def write_page(path: Path, text: str, outcomes: Sequence[Outcome]) -> None:
    """Write the page; ``text`` is the result tables in Markdown."""
    groups = group(outcomes)
    tables = list(dict.fromkeys(table for _, table in groups))
    strategies = list(dict.fromkeys(strategy for strategy, _ in groups))
    figures = []
    for table in tables:
        longest = max(each.trace[-1][0] for name in strategies for each in groups[name, table] if each.trace)
        seconds = np.geomspace(longest / 300, longest, 200)
        curves = {name: regret(groups[name, table], seconds) for name in strategies}
        figures.append(regret_curves(table, seconds, curves))
    times = {name: [each.reached(0.99) for table in tables for each in groups[name, table]] for name in strategies}
    figures.append(critical_difference(*average_ranks(times)))
    plots = [
        figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures)
    ]
    style = "body{font:15px sans-serif;max-width:1100px;margin:2em auto}pre{font-size:13px;overflow-x:auto}"
    body = "\n".join([f"<pre>{escape(text)}</pre>", *plots])
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Strategies compared</title>'
        f"<style>{style}</style><h1>Strategies compared</h1>{body}</html>"
    )


def regret_curves(table: str, seconds: Floats, curves: Mapping[str, Floats]) -> go.Figure:
    """Median hypervolume regret over CPU-seconds; both axes logarithmic."""
    figure = go.Figure()
    for index, (name, values) in enumerate(curves.items()):
        line = {"color": COLOURS[index % len(COLOURS)], "dash": DASHES[index // len(COLOURS) % len(DASHES)]}
        figure.add_scatter(name=name, x=seconds, y=np.maximum(values, 1e-3), mode="lines", line=line)
    figure.update_layout(
        template="plotly_white",
        title=f"{escape(table)}: hypervolume regret, median over seeds",
        xaxis={"type": "log", "title": "CPU-seconds"},
        yaxis={"type": "log", "title": "1 - hypervolume / true hypervolume", "range": [-2.3, 0]},
        height=520,
    )
    return figure


def critical_difference(ranks: Mapping[str, float], difference: float) -> go.Figure:
    """Mean ranks, the best on the left; differences shorter than the bar are not significant (Demsar 2006)."""
    names = sorted(ranks, key=ranks.__getitem__)
    figure = go.Figure()
    values = [ranks[name] for name in names]
    figure.add_scatter(x=values, y=names, mode="markers", marker={"size": 11, "color": COLOURS[0]}, showlegend=False)
    for name in names:
        figure.add_scatter(
            x=[ranks[name], ranks[name] + difference],
            y=[name, name],
            mode="lines",
            line={"color": COLOURS[1]},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_layout(
        template="plotly_white",
        title=f"Mean rank by time to 99 %, with the critical difference of {difference:.2f} (Nemenyi, 5 %)",
        xaxis={"title": "mean rank, 1 is the fastest"},
        yaxis={"autorange": "reversed"},
        height=120 + 28 * len(names),
    )
    return figure
