"""The front as a figure of matplotlib, and figures as SVG or PNG.

Matplotlib is imported only when a figure is asked for. It draws without pyplot, so no display is needed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from search.config import COSTS
from search.report.colours import COLOURS, GREY
from search.report.intervals import Sample
from search.report.rows import mechanism
from search.study.records import Objectives, Record, State, front
from spaces.baselines import BaselineResult

MARKERS = ("o", "s", "D", "^", "p", "v", "*", "h")  # repeat the distinction of the colours
NONE: Mapping[int, Sample] = MappingProxyType({})
TRIALS = "trials-"  # begins the id of a group of points in an SVG, followed by the numbers of the trials
SIZE_IN = (8.0, 5.0)  # 800 x 500 pixels at 100 dots per inch
POINT_PX = 100 / 72  # pixels in a typographic point
STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # the first comes with matplotlib
    "font.size": 9.5,
    "svg.fonttype": "none",  # text stays text: searchable, and a small file
    "svg.hashsalt": "paretoformer",  # the same trials give the same file
    "text.parse_math": False,  # a dollar sign in a study's name is a dollar sign
}


@mpl.rc_context(STYLE)
def rendered(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """The file of a figure."""
    buffer = io.BytesIO()
    if kind == "svg":
        figure.savefig(buffer, format=kind, metadata={"Date": None})
    else:
        figure.savefig(buffer, format=kind, dpi=200)
    return buffer.getvalue()


@mpl.rc_context(STYLE)
def draw(
    records: Sequence[Record],
    objectives: Objectives,
    *,
    title: str,
    baselines: Sequence[BaselineResult] = (),
    repeated: Mapping[int, Sample] = NONE,
) -> Figure:
    """Draw every trial with a finite metric, against the first cost; front members in the style of their mechanisms.

    A baseline is a dotted line at its metric. Of members that were trained again, by number in ``repeated``, there is
    also the mean with its interval.
    """
    cost = objectives.costs[0]
    members = front(records, objectives)
    numbers = {record.number for record in members}
    visible = [record for record in records if cost in record.costs and math.isfinite(record.last_metric or math.nan)]
    dominated = [record for record in visible if record.state == State.COMPLETE and record.number not in numbers]
    stopped = [record for record in visible if record.state in (State.PRUNED, State.PAUSED)]
    figure = Figure(figsize=SIZE_IN, dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")

    def scatter(shown: Sequence[Record], label: str, **style: object) -> None:
        if shown:
            x, y = [record.costs[cost] for record in shown], [record.last_metric for record in shown]
            numbers = TRIALS + "-".join(str(record.number) for record in shown)
            axes.plot(x, y, linestyle="", label=f"{label} ({len(shown)})", gid=numbers, **style)  # type: ignore[arg-type]

    # With one cost this line is the best metric to be had for each cost; with more it would cut through points.
    if len(objectives.costs) == 1 and members:
        x = [*(record.costs[cost] for record in members), max(record.costs[cost] for record in visible)]
        y = [*(record.metric or 0.0 for record in members), members[-1].metric or 0.0]
        axes.step(x, y, where="post", color="#444444", linewidth=1.2, zorder=1)
    for index, name in enumerate(sorted({mechanism(record.architecture) for record in visible})):
        shown = [record for record in members if mechanism(record.architecture) == name]
        marker = MARKERS[index % len(MARKERS)]
        size = 12 if marker == "*" else 9
        colour = COLOURS[index % len(COLOURS)]
        scatter(shown, name, marker=marker, markersize=size, color=colour, markeredgecolor="white", zorder=3)
        for member in shown if cost == "latency_ms" else ():  # from the fastest to the slowest round of measuring
            if member.timing and member.timing.spread:
                ms = member.costs[cost]
                axes.hlines(member.metric or 0.0, ms, ms * (1 + member.timing.spread), color=colour, linewidth=2)
        for member in shown:
            if (sample := repeated.get(member.number)) is not None:
                point = (member.costs[cost], sample.mean, sample.margin)
                axes.errorbar(*point, fmt="_", color=colour, markersize=9, capsize=3, linewidth=1.2, zorder=2)
    scatter(dominated, "dominated", marker="o", markersize=4.5, color=GREY, alpha=0.7, zorder=2)
    scatter(stopped, "stopped early", marker="x", markersize=4.5, color=GREY, zorder=2)

    for baseline in baselines if visible else ():
        axes.axhline(baseline.metrics[objectives.metric], color=GREY, linewidth=1, linestyle=":", zorder=0)
        where = (1.0, baseline.metrics[objectives.metric])
        axes.annotate(
            baseline.name,
            where,
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color="#666666",
        )

    untrained = sum(record.stop is not None and not record.curve for record in records)
    again = "; bars: mean of further trainings, 95% interval" if repeated else ""
    counts = f"{len(members)} of {len(records)} trials are on the front; stopped before training: {untrained}{again}"
    axes.set_title(f"{title}\n{counts}", loc="left", fontsize=10)
    better = " (lower is better)" if objectives.direction == "minimize" else ""
    axes.set_ylabel(f"{objectives.metric.replace('_', ' ')} on the validation split{better}")
    axes.set_xlabel(f"{COSTS[cost].axis}, logarithmic scale")
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.08, y=0.09)
    if visible:
        axes.legend(loc="best", frameon=False, fontsize=9)
        _set_ticks(axes)
        _label(figure, axes, members, visible, cost)
    return figure


def _set_ticks(axes: Axes) -> None:
    """Ticks at 1, 2 and 5 times a power of ten, or more of them where the axis is shorter; plain numbers."""
    low, high = axes.get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) >= 4:
            break
    else:
        ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,.4g}" if tick < 1e6 else f"{tick:.1e}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _label(figure: Figure, axes: Axes, members: Sequence[Record], visible: Sequence[Record], cost: str) -> None:
    """Write the mechanism and number of each member beside it, where it covers nothing.

    A member without such a place has no label; the legend names its mechanism, and the table all members.
    """
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels move nothing
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]

    def pixels(shown: Sequence[Record]) -> NDArray[np.float64]:
        points = [(record.costs[cost], record.last_metric or 0.0) for record in shown]
        return np.asarray(axes.transData.transform(points))

    occupied = [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for x, y in pixels(members)] if members else []
    others = pixels(visible)
    legend = axes.get_legend()
    if legend is not None:
        occupied.append(legend.get_window_extent(renderer))
    for line in axes.lines:  # the front's steps, as points one pixel apart
        if line.get_drawstyle() == "steps-post":
            others = np.concatenate([others, _along_steps(np.asarray(axes.transData.transform(line.get_xydata())))])
    inside = axes.get_window_extent(renderer)
    for member in members:
        (x, y), *_ = pixels([member])
        text = axes.annotate(
            f"{mechanism(member.architecture)}, trial {member.number}",
            (member.costs[cost], member.metric or 0.0),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8.5,
            color="#222222",
        )
        box = text.get_window_extent(renderer)
        best = None
        for left, bottom in _places(box.width, box.height):
            at = Bbox.from_bounds(x + left, y + bottom, box.width, box.height)
            if any(at.overlaps(other) for other in occupied) or not _contains(inside, at):
                continue
            covered = at.padded(1).count_contains(others)
            if best is None or covered < best[0]:
                best = (covered, left, bottom, at)
        if best is None:
            text.remove()
        else:
            text.set_position((best[1] / POINT_PX, best[2] / POINT_PX))
            occupied.append(best[3])


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Offsets in pixels from a point to the lower left corner of its label, the preferred ones first."""
    for gap in (9.0, 15.0):
        for vertical in (gap, -gap - height, -height / 2):
            for horizontal in (gap, -gap - width, -width / 2):
                if (vertical, horizontal) != (-height / 2, -width / 2):
                    yield horizontal, vertical


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)


def _along_steps(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points on a line of horizontal, then vertical steps through ``corners`` ``(n, 2)``, a pixel apart."""
    points = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        along, up = np.arange(x0, x1), np.arange(min(y0, y1), max(y0, y1))
        points += [np.stack([along, np.full_like(along, y0)], 1), np.stack([np.full_like(up, x1), up], 1)]
    return np.concatenate(points) if points else np.empty((0, 2))
