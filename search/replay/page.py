"""An HTML page of a comparison: result tables, regret curves and a critical-difference diagram, without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from search.pareto import Floats
from search.replay.simulation import Outcome
from search.replay.statistics import average_ranks, group, regret
from search.report.charts import new_axes
from search.report.colours import COLOURS
from search.report.svg import element

DASHES = ("-", "--", ":", "-.")
WIDTH_IN = 11.0
LOWEST = 1e-3  # regret that is shown; none is 0
STYLE = """
body { font: 15px sans-serif; max-width: 1100px; margin: 2em auto }
pre { font-size: 13px; overflow-x: auto }
svg { width: 100%; height: auto }
"""


def write_page(path: Path, text: str, outcomes: Sequence[Outcome]) -> None:
    """Write the page; ``text`` is the result tables in Markdown."""
    groups = group(outcomes)
    tables = list(dict.fromkeys(table for _, table in groups))
    strategies = list(dict.fromkeys(strategy for strategy, _ in groups))
    drawn = []
    for table in tables:
        longest = max(each.trace[-1][0] for name in strategies for each in groups[name, table] if each.trace)
        seconds = np.geomspace(longest / 300, longest, 200)
        curves = {name: regret(groups[name, table], seconds) for name in strategies}
        drawn.append(element(draw_regret(table, seconds, curves), f"{table}: hypervolume regret"))
    times = {name: [each.reached(0.99) for table in tables for each in groups[name, table]] for name in strategies}
    drawn.append(element(draw_critical_difference(*average_ranks(times)), "Mean ranks of the strategies"))
    body = "\n".join([f"<pre>{escape(text)}</pre>", *drawn])
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Strategies compared</title>'
        f"<style>{STYLE}</style><h1>Strategies compared</h1>{body}</html>"
    )


def draw_regret(table: str, seconds: Floats, curves: Mapping[str, Floats]) -> Figure:
    """Median hypervolume regret over CPU-seconds; both axes logarithmic."""
    title = f"{table}: hypervolume regret, median over seeds"
    figure, axes = new_axes("CPU-seconds", "1 - hypervolume / true hypervolume", title=title, size_in=(WIDTH_IN, 5.0))
    for index, (name, values) in enumerate(curves.items()):
        colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
        axes.plot(seconds, np.maximum(values, LOWEST), color=colour, linestyle=dashes, label=name)
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")  # the default one is a formula, and STYLE turns these off
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def draw_critical_difference(ranks: Mapping[str, float], difference: float) -> Figure:
    """Mean ranks, the best on top; differences shorter than the bar are not significant (Demsar 2006)."""
    names = sorted(ranks, key=ranks.__getitem__)
    title = f"Mean rank by time to 99 %, with the critical difference of {difference:.2f} (Nemenyi, 5 %)"
    size_in = WIDTH_IN, 1.2 + 0.28 * len(names)
    figure, axes = new_axes("mean rank, 1 is the fastest", "", title=title, size_in=size_in)
    values, rows = [ranks[name] for name in names], range(len(names))
    axes.hlines(rows, values, [value + difference for value in values], color=COLOURS[1])
    axes.plot(values, rows, linestyle="", marker="o", color=COLOURS[0])
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    return figure
