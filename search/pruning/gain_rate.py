"""Pause trials whose expected hypervolume improvement (EHVI) per second is far below that of the alternatives.

One posterior decides what is started, paused and resumed (:mod:`search.samplers.posterior`). A trial is paused when its
EHVI per second of remaining training is below a share of the best alternative: a paused trial, or an architecture like
its own that was never trained, which stands for those not yet started, because a pruner does not know candidates. It
keeps its checkpoint. A trial that was resumed is not paused again: otherwise, where all that is left promises little,
trials would be paused and resumed epoch by epoch.
"""

from __future__ import annotations

import numpy as np

from search.acquisition import BoxDecomposition
from search.pruning import Pruner, better_at_no_higher_cost, stop_behind
from search.pruning.ceiling import Ceiling
from search.samplers.surrogate import ehvi_per_second
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_number, check_whole

LAST_RESUME = 0.2  # factor on patience: the share of the study's mean gain per second that is enough at the end


class GainRate(Pruner):
    """Pause a trial whose EHVI per second is below ``patience`` times that of the best alternative.

    :class:`~search.pruning.ceiling.Ceiling` decides first, and alone before training. No trial is paused while fewer
    than ``first`` others are complete, or if no trial that costs no more was better after the same epoch.

    Args:
        patience: share of the best alternative's EHVI per second that is enough to go on; 0 never pauses.
        first: complete trials that are needed before any is paused.
        target: as in :class:`~search.pruning.ceiling.Ceiling`.
    """

    pauses = True

    def __init__(self, *, patience: float, first: int, target: float | None = None) -> None:
        check_number(0.0, patience=patience)
        check_whole(1, first=first)
        self.patience, self.first, self.ceiling = patience, first, Ceiling(target=target)

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if the target is reached; pause if the alternatives promise far more per second."""
        if stop := self.ceiling.decide(row, epoch, history):
            return stop
        if epoch == 0 or np.count_nonzero(history.complete) - history.complete[row] < self.first:
            return None
        record = history.record(int(history.numbers[row]))
        if record.resumed:
            return None
        losses = history.losses_at(epoch)
        better = better_at_no_higher_cost(row, losses, history)
        if not len(better):
            return None
        paused = np.flatnonzero(history.paused)
        gain, *others = ehvi_per_second(history, np.array([row, *paused[paused != row]]))
        start = ehvi_per_second(history, np.empty(0, dtype=np.intp), [record], forget=row)
        enough = self.patience * max([*others, *start])
        if self.patience == 0 or gain >= enough > 0:
            return None
        why = f"expected hypervolume gain {gain:.2g}/s, below the threshold {enough:.2g}/s"
        return stop_behind(row, epoch, history, better, losses, why=why, threshold=losses[better].min())

    def resumes(self, history: History, *, last: bool) -> int | None:
        """The paused trial with the highest EHVI per second, if that is above the study's mean gain per second.

        With ``last``, ``LAST_RESUME * patience`` times the mean is enough.
        """
        rows = np.flatnonzero(history.paused)
        if not len(rows) or np.count_nonzero(history.complete) < self.first:
            return None
        boxes = BoxDecomposition(history)
        gains = ehvi_per_second(history, rows)
        best = int(np.argmax(gains))
        enough = (LAST_RESUME * self.patience if last else 1.0) * mean_gain_per_second(history, boxes)
        return int(history.numbers[rows[best]]) if gains[best] > enough else None


def mean_gain_per_second(history: History, boxes: BoxDecomposition) -> float:
    """The study's hypervolume divided by all seconds of training so far."""
    seconds = float(history.seconds.sum())
    return boxes.hypervolume / seconds if seconds else 0.0
