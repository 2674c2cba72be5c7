"""Asynchronous successive halving on the metric alone: the negative control of a comparison.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020 (ASHA). It ignores costs and so stops the cheap
models that a Pareto front consists of: the difference to the other rules is what taking costs into account is worth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.pruning import SuccessiveHalving, stop_behind
from search.study.history import History
from search.study.records import Stop


class AccuracyOnly(SuccessiveHalving):
    """At each rung the ``ceil(n / eta)`` trials with the best metric go on, of ``n`` evaluated there."""

    def decide_at_rung(self, row: int, rows: NDArray[np.intp], epoch: int, history: History) -> Stop | None:
        """Stop if ``ceil(n / eta)`` trials are better; a tie goes to the earlier trial."""
        losses, numbers = history.losses_at(epoch), history.numbers
        places = -(-len(rows) // self.eta)
        ties = (losses[rows] == losses[row]) & (numbers[rows] < numbers[row])
        better = rows[(losses[rows] < losses[row]) | ties]
        if len(better) < places:
            return None
        threshold = np.sort(losses[better])[places - 1]
        why = f"not among the best {places} of {len(rows)}"
        return stop_behind(row, epoch, history, better, losses, why=why, threshold=threshold, label="better")
