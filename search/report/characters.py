"""The front as a plot in characters, for terminals: the metric against the logarithm of the first cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.study.records import Objectives, Record, front

MEMBER, OTHER = "*", "."


def character_plot(records: Sequence[Record], objectives: Objectives, *, width: int = 60, height: int = 8) -> list[str]:
    """The lines of the plot: ``*`` is a member of the front, ``.`` another trial, at its last metric.

    Empty while the front has fewer than two members, or if they do not differ.

    Args:
        records: the study.
        objectives: the metric and the costs.
        width: of the plot with its labels, in characters.
        height: lines without those of the cost.
    """
    cost, members = objectives.costs[0], front(records, objectives)
    numbers = {member.number for member in members}
    points = [
        (math.log(record.costs[cost]), record.last_metric, record.number in numbers)
        for record in records
        if record.costs.get(cost, 0.0) > 0 and record.last_metric is not None and math.isfinite(record.last_metric)
    ]
    lows = [min((point[axis] for point in points), default=0.0) for axis in (0, 1)]
    highs = [max((point[axis] for point in points), default=0.0) for axis in (0, 1)]
    if len(members) < 2 or lows[0] == highs[0] or lows[1] == highs[1]:
        return []
    labels = f"{highs[1]:.3g}", f"{lows[1]:.3g}"
    margin = max(map(len, labels))
    columns = width - margin - 2
    rows = [[" "] * columns for _ in range(height)]
    for x, y, is_member in sorted(points, key=lambda point: point[2]):  # members last: they cover the others
        column = round((x - lows[0]) / (highs[0] - lows[0]) * (columns - 1))
        row = round((highs[1] - y) / (highs[1] - lows[1]) * (height - 1))
        rows[row][column] = MEMBER if is_member else OTHER
    title = {0: labels[0], height - 1: labels[1]}
    lines = [f"{title.get(row, ''):>{margin}} |{''.join(cells).rstrip()}" for row, cells in enumerate(rows)]
    left, right = f"{math.exp(lows[0]):.3g}", f"{math.exp(highs[0]):.3g}"
    legend = f"{objectives.metric} against {cost} (logarithmic); {MEMBER} front, {OTHER} others"
    ruler = "-" * columns
    return [
        f"{'':>{margin}}  {legend}",
        *lines,
        f"{'':>{margin}} +{ruler}",
        f"{'':>{margin}}  {left}{right:>{max(1, columns - len(left))}}",
    ]
