"""Good enough is known already: skip a trial if a finished one that costs no more has reached the target."""

from __future__ import annotations

import numpy as np

from search.pruning import KEPT, Pruner, better, ranked
from search.study.history import History
from search.study.records import Stop


class Ceiling(Pruner):
    """Before training and after every epoch, stop behind a finished trial that costs no more and met the target.

    What is lost is at most the distance from the target to the best metric there can be.

    Args:
        target: the metric that is good enough; None for 99 % of the way from the task's chance level to its best.
    """

    def __init__(self, *, target: float | None = None) -> None:
        if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
            raise ValueError(f"target={target!r}: it must be a number or null")
        self.target = target

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if there is such a trial."""
        aims = history.objectives
        target = aims.chance + 0.99 * (aims.best - aims.chance) if self.target is None else self.target
        done = np.flatnonzero(history.no_dearer(row) & history.complete & (history.finals <= aims.loss(target)))
        if not len(done):
            return None
        numbers = ranked(done, history.finals, history)
        return Stop(
            f"{'before training' if epoch == 0 else f'epoch {epoch}'}: the target {aims.metric} {target:.4g} is met; "
            f"{better(numbers)}",
            epoch,
            threshold=target,
            beaten_by=tuple(numbers[:KEPT]),
        )
