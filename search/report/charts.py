"""Charts of a study for its page, drawn by matplotlib: learning curves, hypervolume, importance of the dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.budget.gain import in_order_of_end, work_s
from search.report.colours import COLOURS, GREY
from search.report.figure import STYLE
from search.report.pauses import Predicted
from search.study.records import Objectives, Record, front

SIZE_IN = (7.0, 3.4)
MOST_CURVES = 300  # further ones would only make the file larger
MOST_DIMENSIONS = 10


def draw_curves(records: Sequence[Record], objectives: Objectives) -> Figure:
    """The metric by epoch of each trial, those of the front in colours."""
    figure, axes = new_axes("epoch", f"{objectives.metric.replace('_', ' ')} on validation")
    members = front(records, objectives)
    numbers = {member.number for member in members}
    others = [record for record in records if record.number not in numbers and record.curve]
    for record in others[-MOST_CURVES:]:
        axes.plot(*_curve(record), color=GREY, linewidth=0.7, alpha=0.5)
    for index, member in enumerate(members):
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(*_curve(member), color=colour, linewidth=1.6, marker=".", label=f"trial {member.number}")
    if members:
        axes.legend(frameon=False, fontsize=8, ncols=1 + len(members) // 12)
    return figure


def draw_hypervolume(records: Sequence[Record], objectives: Objectives) -> Figure:
    """The hypervolume after each trial that ended, against the seconds of measuring and training so far."""
    figure, axes = new_axes("seconds of measuring and training, of all workers", "hypervolume")
    ended = in_order_of_end(records)
    seconds = list(accumulate(map(work_s, ended)))
    growth = [objectives.hypervolume(ended[: size + 1]) for size in range(len(ended))]
    axes.step([0.0, *seconds], [0.0, *growth], where="post", color=COLOURS[0], linewidth=1.4)
    axes.set_ylim(bottom=0)
    return figure


def draw_pauses(predicted: Sequence[Predicted], members: Sequence[Record], objectives: Objectives) -> Figure:
    """The final metrics that are predicted for paused trials, with their standard deviations, beside the front."""
    cost = objectives.costs[0]
    figure, axes = new_axes(cost, f"{objectives.metric.replace('_', ' ')} on validation")
    axes.plot(
        [member.costs[cost] for member in members],
        [member.metric or 0.0 for member in members],
        marker="o",
        linestyle="",
        color=COLOURS[0],
        label="the front",
    )
    for possible, colour, label in ((True, COLOURS[1], "may be on the front"), (False, GREY, "dominated")):
        shown = [each for each in predicted if each.may_be_on_front == possible]
        if shown:
            x, y = [each.record.costs[cost] for each in shown], [each.metric for each in shown]
            stds = [each.std for each in shown]
            axes.errorbar(x, y, yerr=stds, fmt="x", color=colour, linewidth=1, label=f"paused: {label}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_importance(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """A bar for each dimension and objective, the most important dimensions first."""
    totals: dict[str, float] = {}
    for each in shares.values():
        for dimension, share in each.items():
            totals[dimension] = totals.get(dimension, 0.0) + share
    names = sorted(totals, key=lambda name: -totals[name])[:MOST_DIMENSIONS]
    figure, axes = new_axes("share of the variance that is explained", "")
    height = 0.8 / len(shares)
    for index, (objective, each) in enumerate(shares.items()):
        positions = [at + (index - (len(shares) - 1) / 2) * height for at in range(len(names))]
        values = [each.get(name, 0.0) for name in names]
        axes.barh(positions, values, height * 0.9, color=COLOURS[index % len(COLOURS)], label=objective)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def new_axes(x: str, y: str, *, title: str = "", size_in: tuple[float, float] = SIZE_IN) -> tuple[Figure, Axes]:
    """A figure with axes of these labels and a grid."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size_in, layout="constrained")
        axes = figure.add_subplot(title=title, xlabel=x, ylabel=y)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _curve(record: Record) -> tuple[list[int], list[float]]:
    curve = dict(record.curve)  # the later entry of a repeated epoch counts
    return list(curve), list(curve.values())
