"""Hopeless even if all goes well: stop a trial whose optimistic end is already dominated.

A trial can enter the front only if its final metric beats the best that finished trials of no higher cost have reached.
How far it may still come is read off those that were as far as it is now: by which metric they gained until their end.
"""

from __future__ import annotations

import math

import numpy as np

from search.pruning import KEPT, Pruner, better, ranked
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_number, check_whole


class Optimistic(Pruner):
    """Stop when the metric now, plus a high quantile of what others gained from here, would not enter the front.

    Args:
        quantile: of the gains, 0 to 1; 1 is the largest.
        neighbours: finished trials whose metric after the same epoch was nearest; their gains count.
        min_epochs: the first epoch after which it judges.
    """

    def __init__(self, *, quantile: float, neighbours: int, min_epochs: int) -> None:
        check_number(0.0, 1.0, quantile=quantile)
        check_whole(1, neighbours=neighbours, min_epochs=min_epochs)
        self.quantile, self.neighbours, self.min_epochs = quantile, neighbours, min_epochs

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if a finished trial that costs no more is at least as good as the optimistic end."""
        finished = history.complete.copy()
        finished[row] = False
        losses = history.losses_at(epoch)
        finished &= np.isfinite(losses)
        if epoch < self.min_epochs or np.count_nonzero(finished) < self.neighbours:
            return None
        rows = np.flatnonzero(finished)
        distance = np.abs(losses[rows] - losses[row])
        near = rows[distance <= np.partition(distance, self.neighbours - 1)[self.neighbours - 1]]  # ties: all of them
        end = losses[row] - float(np.quantile(losses[near] - history.finals[near], self.quantile))
        rivals = history.no_dearer(row) & history.complete
        bar = float(np.min(history.finals[rivals], initial=math.inf))
        if end < bar:
            return None
        numbers = ranked(np.flatnonzero(rivals & (history.finals <= end)), history.finals, history)
        metric = history.objectives.loss
        return Stop(
            f"epoch {epoch}: {history.objectives.metric} {metric(losses[row]):.4g} would come to {metric(end):.4g}; "
            f"{better(numbers)}",
            epoch,
            threshold=metric(bar),
            beaten_by=tuple(numbers[:KEPT]),
        )
