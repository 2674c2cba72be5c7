"""Multi-objective asynchronous successive halving (MO-ASHA), by non-dominated sorting and crowding distance.

Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021 (arXiv:2106.12639). A trial's rank at a rung
is the number of trials in all better fronts plus its place in its own front, in order of decreasing crowding distance
(Deb et al. 2002). Distances are normalised by the ranges of the whole rung; a tie goes to the better metric, then to
the earlier trial.

Limits: it compares the metric at the same epoch, so it stops trials that learn late; and as in every asynchronous
halving, of the first few trials at a rung all but the best so far are stopped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, crowding_distance, dominating, iter_fronts
from search.pruning import SuccessiveHalving, stop_behind
from search.study.history import History
from search.study.records import Stop


class MoAsha(SuccessiveHalving):
    """At each rung the ``ceil(n / eta)`` best-ranked of the ``n`` trials ever evaluated there go on.

    Stopped trials are counted in ``n``. The cheapest trial always goes on too, because it is one end of the front
    whatever it learns.
    """

    def decide_at_rung(self, row: int, rows: NDArray[np.intp], epoch: int, history: History) -> Stop | None:
        """Stop unless among the best ``ceil(n / eta)``, or the cheapest."""
        losses = history.losses_at(epoch)
        points = np.column_stack([losses[rows], history.costs[rows]])
        here, places = int(np.flatnonzero(rows == row)[0]), -(-len(rows) // self.eta)
        if here == cheapest(points) or among_best(points, here, places):
            return None
        dominators = rows[dominating(points, points[here])]
        why = f"not among the best {places} of {len(rows)}" + ("" if len(dominators) else "; lower crowding distance")
        return stop_behind(row, epoch, history, dominators, losses, why=why)


def among_best(points: Floats, row: int, places: int) -> bool:
    """Whether fewer than ``places`` of ``points`` ``(n, objectives)`` are ranked before one of them.

    ``points`` are losses and costs, loss first, in order of trial number; those of ``row`` are finite.
    """
    if np.count_nonzero(dominating(points, points[row])) >= places:
        return False  # all of them are in better fronts
    # Points that it dominates are ranked behind it, and removing them changes no better front.
    rows = np.flatnonzero((points < points[row]).any(axis=1) | (points == points[row]).all(axis=1))
    if len(rows) <= places:
        return True
    better = 0
    for members in iter_fronts(points[rows]):
        front = rows[members]
        if (front == row).any():
            break
        better += len(front)
        if better >= places:
            return False
    else:
        return False  # its costs are unknown: it is on no front
    if better + len(front) <= places:
        return True
    ranges = np.ptp(points[np.isfinite(points).all(axis=1)], axis=0)
    distance = crowding_distance(points[front], ranges)
    first = np.lexsort((front, points[front, 0], -distance))[: places - better]
    return bool((front[first] == row).any())


def cheapest(points: Floats) -> int:
    """The row with the lowest costs in lexicographic order; ties go to the lowest loss, then to the first row."""
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    for objective in (*range(1, points.shape[1]), 0):
        values = points[rows, objective]
        rows = rows[values == values.min()]
    return int(rows[0])
