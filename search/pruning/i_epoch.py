"""One early evaluation: after a fixed epoch only the Pareto front of that epoch goes on.

Egele et al., "The Unreasonable Effectiveness of Early Discarding after One Epoch in Neural Network Hyperparameter
Optimization", 2024: a strong simple baseline for a single metric; here with costs.
"""

from __future__ import annotations

from search.pruning import Pruner, better_at_no_higher_cost, stop_behind
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_whole


class IEpoch(Pruner):
    """Stop after ``epoch`` if any trial that costs no more had a better metric there.

    Args:
        epoch: the one after which trials are compared.
    """

    def __init__(self, *, epoch: int) -> None:
        check_whole(1, epoch=epoch)
        self.epoch = epoch

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if a single such trial is better."""
        if epoch != self.epoch:
            return None
        losses = history.losses_at(epoch)
        better = better_at_no_higher_cost(row, losses, history)
        return stop_behind(row, epoch, history, better, losses, threshold=losses[better].max()) if len(better) else None
