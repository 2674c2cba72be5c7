"""Dominated at the rung: stop a trial that others which cost no more are ahead of after the same epoch."""

from __future__ import annotations

import numpy as np

from search.pruning import Pruner, behind
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_number, check_whole


class LatencyConditional(Pruner):
    """From ``min_epochs`` on, stop behind ``beaters`` trials that cost no more in anything.

    Whoever was judged after the same epoch counts, whatever became of it later.

    Args:
        beaters: so many must be better.
        slack: by more than this, in units of the metric.
        min_epochs: the first epoch after which it judges.
    """

    def __init__(self, *, beaters: int, slack: float, min_epochs: int) -> None:
        check_whole(1, beaters=beaters, min_epochs=min_epochs)
        check_number(0.0, slack=slack)
        self.beaters, self.slack, self.min_epochs = beaters, slack, min_epochs

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if at least ``beaters`` are better by more than ``slack``."""
        if epoch < self.min_epochs:
            return None
        losses = history.losses_at(epoch)
        beaters = np.flatnonzero(history.no_dearer(row) & (losses < losses[row] - self.slack))
        return behind(row, epoch, beaters, history, slack=self.slack) if len(beaters) >= self.beaters else None
