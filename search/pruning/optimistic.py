"""Learning-curve extrapolation: stop a trial whose optimistic final metric is already dominated.

A trial can enter the Pareto front only if its final metric is better than that of every complete trial that costs no
more. How much it may still gain is estimated from complete trials that had a similar metric after the same epoch.
"""

from __future__ import annotations

import math

import numpy as np

from search.pruning import Pruner, stop_behind
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_number, check_whole


class Optimistic(Pruner):
    """Stop if the metric plus a high quantile of the gains of similar trials would not enter the front.

    Args:
        quantile: of the gains, 0 to 1; 1 is the largest.
        neighbours: how many complete trials, nearest in the metric after the same epoch, the gains are taken from.
        min_epochs: the first epoch after which trials are compared.
    """

    def __init__(self, *, quantile: float, neighbours: int, min_epochs: int) -> None:
        check_number(0.0, 1.0, quantile=quantile)
        check_whole(1, neighbours=neighbours, min_epochs=min_epochs)
        self.quantile, self.neighbours, self.min_epochs = quantile, neighbours, min_epochs

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if a complete trial that costs no more is at least as good as the optimistic final metric."""
        losses, finals = history.losses_at(epoch), history.finals
        complete = history.complete & np.isfinite(losses)
        complete[row] = False
        if epoch < self.min_epochs or np.count_nonzero(complete) < self.neighbours:
            return None
        rows = np.flatnonzero(complete)
        distance = np.abs(losses[rows] - losses[row])
        nearest = rows[distance <= np.partition(distance, self.neighbours - 1)[self.neighbours - 1]]  # with all ties
        optimistic = losses[row] - float(np.quantile(losses[nearest] - finals[nearest], self.quantile))
        rivals = history.cheaper_or_equal(row) & history.complete
        threshold = float(np.min(finals[rivals], initial=math.inf))
        if optimistic < threshold:
            return None
        better = np.flatnonzero(rivals & (finals <= optimistic))
        why = f"at best {history.objectives.loss(optimistic):.4g} expected in the end"
        return stop_behind(row, epoch, history, better, finals, why=why, threshold=threshold)
