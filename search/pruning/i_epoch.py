"""One early look: after a fixed epoch only the front of that moment goes on.

Egele et al., "The Unreasonable Effectiveness of Early Discarding after One Epoch in Neural Network Hyperparameter
Optimization", 2024: a strong simple baseline for a single metric; here with costs.
"""

from __future__ import annotations

import numpy as np

from search.pruning import Pruner, behind
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_whole


class IEpoch(Pruner):
    """Stop after ``epoch`` unless nobody that costs no more is better at that moment.

    Args:
        epoch: the one after which it judges.
    """

    def __init__(self, *, epoch: int) -> None:
        check_whole(1, epoch=epoch)
        self.epoch = epoch

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop behind a single better one."""
        if epoch != self.epoch:
            return None
        losses = history.losses_at(epoch)
        beaters = np.flatnonzero(history.no_dearer(row) & (losses < losses[row]))
        return behind(row, epoch, beaters, history) if len(beaters) else None
