"""Skip trials that cannot matter: a complete trial that costs no more has already reached the target metric."""

from __future__ import annotations

import numpy as np

from search.pruning import Pruner, stop_behind
from search.study.history import History
from search.study.records import Stop


class Ceiling(Pruner):
    """Before training and after every epoch, stop if a complete trial that costs no more has reached the target.

    At most the distance from the target to the best possible metric is lost.

    Args:
        target: metric that is good enough; None for 99 % of the way from the task's chance level to its best.
    """

    def __init__(self, *, target: float | None = None) -> None:
        if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
            raise ValueError(f"target={target!r}: it must be a number or null")
        self.target = target

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if there is such a trial."""
        objectives, losses = history.objectives, history.finals
        target = self.target
        if target is None:
            target = objectives.chance + 0.99 * (objectives.best - objectives.chance)
        threshold = objectives.loss(target)
        reached = np.flatnonzero(history.cheaper_or_equal(row) & history.complete & (losses <= threshold))
        if not len(reached):
            return None
        why = f"the target {objectives.metric} {target:.4g} is reached"
        return stop_behind(row, epoch, history, reached, losses, why=why, threshold=threshold)
