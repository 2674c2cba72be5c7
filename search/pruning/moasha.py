"""Multi-objective asynchronous successive halving: at every rung the better ``1 / eta`` of the trials go on.

Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021 (arXiv:2106.12639), ranking by layers and
crowding. A trial's position at a rung is the number of members of all better layers plus its place in its own, where
those with more room come first: room is measured inside the layer, as a share of the whole rung's range, and a tie
goes to the better metric, then to the earlier trial.

Limits: it judges by the metric of the moment, so it stops what learns late; and of the first few trials at a rung all
but the best of the moment are stopped, as in every asynchronous halving.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, crowding, dominating, peeled
from search.pruning import KEPT, Pruner, better, is_rung
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_whole


class MoAsha(Pruner):
    """At the epochs ``min_epochs * eta**k`` a trial goes on if it is among the best ``ceil(n / eta)`` of the rung.

    The ``n`` trials of a rung are all that were ever judged there, this one and the stopped ones included. The cheapest
    of them always goes on, as it ends one side of the front whatever it learns: ``ceil(n / eta) + 1`` at most do.

    Args:
        eta: one in so many goes on.
        min_epochs: the first rung.
    """

    def __init__(self, *, eta: int, min_epochs: int) -> None:
        check_whole(2, eta=eta)
        check_whole(1, min_epochs=min_epochs)
        self.eta, self.min_epochs = eta, min_epochs

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop behind the best ``ceil(n / eta)``; between rungs and before training, go on."""
        if not is_rung(epoch, eta=self.eta, min_epochs=self.min_epochs):
            return None
        rows, points = judged_at(epoch, history)
        here, places = int(np.flatnonzero(rows == row)[0]), -(-len(rows) // self.eta)
        if here == cheapest(points) or among_best(points, here, places):
            return None
        beaters = history.numbers[rows[dominating(points, points[here])]].tolist()
        who = better(beaters) if beaters else "nobody beats it, but those around it have more room"
        metric = history.objectives.loss(points[here, 0])
        return Stop(
            f"epoch {epoch}: {history.objectives.metric} {metric:.4g} is not among the best {places} of {len(rows)}; "
            f"{who}",
            epoch,
            beaten_by=tuple(beaters[:KEPT]),
        )


def judged_at(epoch: int, history: History) -> tuple[NDArray[np.intp], Floats]:
    """The rows judged after ``epoch`` in order of trial number, and their losses and costs ``(n, 1 + costs)``."""
    losses = history.losses_at(epoch)
    rows = np.flatnonzero(~np.isnan(losses))
    rows = rows[np.argsort(history.numbers[rows])]
    return rows, np.column_stack([losses[rows], history.costs[rows]])


def among_best(points: Floats, row: int, places: int) -> bool:
    """Whether fewer than ``places`` of ``points`` ``(n, objectives)`` stand before one of them.

    ``points`` are losses and costs, loss first, in order of trial number; those of ``row`` are finite.
    """
    if np.count_nonzero(dominating(points, points[row])) >= places:
        return False  # they all stand in better layers
    # Whom it dominates stands behind it, and moves nobody who does not.
    rows = np.flatnonzero((points < points[row]).any(axis=1) | (points == points[row]).all(axis=1))
    if len(rows) <= places:
        return True
    better = 0
    for layer in peeled(points[rows]):
        peers = rows[layer]
        if (peers == row).any():
            break
        better += len(peers)
        if better >= places:
            return False
    else:
        return False  # it is no point: it stands behind the last layer
    if better + len(peers) <= places:
        return True
    ranges = np.ptp(points[np.isfinite(points).all(axis=1)], axis=0)
    room = crowding(points[peers], ranges)
    first = np.lexsort((peers, points[peers, 0], -room))[: places - better]
    return bool((peers[first] == row).any())


def cheapest(points: Floats) -> int:
    """The row with the lowest first cost, then the lowest second, and so on; then the lowest loss, then the first."""
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    for objective in (*range(1, points.shape[1]), 0):
        values = points[rows, objective]
        rows = rows[values == values.min()]
    return int(rows[0])
