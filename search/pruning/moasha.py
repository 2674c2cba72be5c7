"""Multi-objective asynchronous successive halving: at every rung the better ``1 / eta`` of the trials go on.

Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021 (arXiv:2106.12639), ranking by layers and
crowding. A trial's position at a rung is the number of members of all better layers plus its place in its own, where
those with more room come first: room is measured inside the layer, as a share of the whole rung's range, and a tie
goes to the better metric, then to the earlier trial.

Limits: it judges by the metric of the moment, so it stops what learns late; and of the first few trials at a rung all
but the best of the moment are stopped, as in every asynchronous halving.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, crowding, dominating, layers
from search.pruning import Pruner, Rung
from search.records import Objectives, Record

NAMED = 3  # trials that a reason names; of the others it gives the number


class MoAsha(Pruner):
    """At the epochs ``min_epochs * eta**k`` a trial goes on if it is among the best ``ceil(n / eta)`` of the rung.

    The ``n`` trials of a rung are all that were ever judged there, this one and the stopped ones included. The cheapest
    of them always goes on, as it ends one side of the front whatever it learns: ``ceil(n / eta) + 1`` at most do.

    Args:
        eta: one in so many goes on.
        min_epochs: the first rung.
    """

    def __init__(self, *, eta: int, min_epochs: int) -> None:
        for name, value, least in (("eta", eta, 2), ("min_epochs", min_epochs, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value}: it must be a whole number of at least {least}")
        self.eta, self.min_epochs = eta, min_epochs

    def judge(self, trial: Record, others: Sequence[Record], objectives: Objectives) -> str | None:
        """Stop behind the best ``ceil(n / eta)``; between rungs and before training, go on."""
        epoch, metric = trial.curve[-1] if trial.curve else (0, 0.0)
        if not self.is_rung(epoch):
            return None
        rung = Rung.read(epoch, (trial, *others), objectives)
        row, count = int(np.searchsorted(rung.numbers, trial.number)), len(rung.numbers)
        places = -(-count // self.eta)
        if among_best(rung.points, row, places) or row == cheapest(rung.points):
            return None
        return (
            f"epoch {epoch}: {objectives.metric} {metric:.4g} is not among the best {places} of {count}; "
            f"{_who(rung.numbers[dominating(rung.points, rung.points[row])])}"
        )

    def is_rung(self, epoch: int) -> bool:
        """Whether trials are judged after ``epoch``."""
        rung = self.min_epochs
        while rung < epoch:
            rung *= self.eta
        return rung == epoch


def among_best(points: Floats, row: int, places: int) -> bool:
    """Whether fewer than ``places`` of ``points`` ``(n, objectives)`` stand before one of them.

    ``points`` are losses and costs, loss first, in order of trial number.
    """
    depths = layers(points)
    better = np.count_nonzero(depths < depths[row])
    peers = np.flatnonzero(depths == depths[row])
    if better >= places or better + len(peers) <= places:
        return bool(better < places)
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


def _who(dominators: NDArray[np.intp]) -> str:
    """Who is at least as good in everything, for people."""
    if not len(dominators):
        return "nobody beats it, but those around it have more room"
    named = ", ".join(str(number) for number in dominators[:NAMED])
    more = f" and {len(dominators) - NAMED} more" if len(dominators) > NAMED else ""
    return f"better at no higher cost: trial{'s' * (len(dominators) > 1)} {named}{more}"
