"""Dominated at the same epoch: stop a trial if several others that cost no more had a better metric there."""

from __future__ import annotations

from search.pruning import Pruner, better_at_no_higher_cost, stop_behind
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_number, check_whole


class LatencyConditional(Pruner):
    """From ``min_epochs`` on, stop if ``beaters`` trials that cost no more were better after the same epoch.

    All trials that were evaluated after this epoch count, in whatever state they are now.

    Args:
        beaters: how many trials must be better.
        slack: by more than this, in units of the metric.
        min_epochs: the first epoch after which trials are compared.
    """

    def __init__(self, *, beaters: int, slack: float, min_epochs: int) -> None:
        check_whole(1, beaters=beaters, min_epochs=min_epochs)
        check_number(0.0, slack=slack)
        self.beaters, self.slack, self.min_epochs = beaters, slack, min_epochs

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if at least ``beaters`` trials are better by more than ``slack``."""
        if epoch < self.min_epochs:
            return None
        losses = history.losses_at(epoch)
        better = better_at_no_higher_cost(row, losses, history, slack=self.slack)
        if len(better) < self.beaters:
            return None
        return stop_behind(row, epoch, history, better, losses, threshold=losses[better].max() + self.slack)
