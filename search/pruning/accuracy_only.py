"""Asynchronous successive halving on the metric alone: the negative control.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020 (ASHA). Blind to costs, it stops the cheap
models that a front is made of; it is here so that a comparison shows what looking at costs is worth.
"""

from __future__ import annotations

import numpy as np

from search.pruning import KEPT, Pruner, is_rung, ranked
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_whole


class AccuracyOnly(Pruner):
    """At the epochs ``min_epochs * eta**k`` the best ``ceil(n / eta)`` of the ``n`` judged there go on.

    Args:
        eta: one in so many goes on.
        min_epochs: the first rung.
    """

    def __init__(self, *, eta: int, min_epochs: int) -> None:
        check_whole(2, eta=eta)
        check_whole(1, min_epochs=min_epochs)
        self.eta, self.min_epochs = eta, min_epochs

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop behind the best ``ceil(n / eta)``; a tie goes to the earlier trial."""
        if not is_rung(epoch, eta=self.eta, min_epochs=self.min_epochs):
            return None
        losses, numbers = history.losses_at(epoch), history.numbers
        rows = np.flatnonzero(~np.isnan(losses))
        places = -(-len(rows) // self.eta)
        before = (losses[rows] < losses[row]) | ((losses[rows] == losses[row]) & (numbers[rows] < numbers[row]))
        if np.count_nonzero(before) < places:
            return None
        ahead = rows[before]
        metric = history.objectives.loss
        return Stop(
            f"epoch {epoch}: {history.objectives.metric} {metric(losses[row]):.4g} is not among the best {places} of "
            f"{len(rows)}; ahead: {len(ahead)}",
            epoch,
            threshold=metric(float(np.sort(losses[ahead])[places - 1])),
            beaten_by=tuple(ranked(ahead, losses, history)[:KEPT]),
        )
