"""Pause trials whose expected hypervolume improvement per second is low: the default.

A trial goes on while its EHVI per second of remaining training (:mod:`search.acquisition`) is not far below the
hypervolume that the study has gained per second so far. Standard deviations are multiplied by ``STD_SCALE``, as in the
choice of the next trial, because trials that learn late, such as softmax attention, have little else in their favour.
A paused trial keeps its checkpoint. The study's mean gain per second falls as the front fills up, so paused trials are
resumed once nothing better is left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.acquisition import STD_SCALE, BoxDecomposition, extrapolate_final_loss
from search.pareto import Floats
from search.pruning import Pruner, better_at_no_higher_cost, stop_behind
from search.pruning.ceiling import Ceiling
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_number, check_whole

RESUME_MARGIN = 2.0  # factor on patience for a last resume: just above patience, a trial would be paused each epoch


class GainRate(Pruner):
    """Pause a trial whose EHVI per second is below ``patience`` times the study's mean gain per second.

    :class:`~search.pruning.ceiling.Ceiling` decides first, and alone before training. No trial is paused while fewer
    than ``first`` others are complete, or if no trial that costs no more was better after the same epoch.

    Args:
        patience: share of the study's mean gain per second that is enough to go on; 0 never pauses.
        first: complete trials that are needed before any is paused.
        target: as in :class:`~search.pruning.ceiling.Ceiling`.
    """

    pauses = True

    def __init__(self, *, patience: float, first: int, target: float | None = None) -> None:
        check_number(0.0, patience=patience)
        check_whole(1, first=first)
        self.patience, self.first, self.ceiling = patience, first, Ceiling(target=target)

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop if the target is reached; pause if the expected gain per second is low."""
        if stop := self.ceiling.decide(row, epoch, history):
            return stop
        if epoch == 0 or np.count_nonzero(history.complete) - history.complete[row] < self.first:
            return None
        losses = history.losses_at(epoch)
        better = better_at_no_higher_cost(row, losses, history)
        if not len(better):
            return None
        boxes = BoxDecomposition(history)
        gain = float(ehvi_per_second(np.array([row]), history, boxes)[0])
        enough = self.patience * mean_gain_per_second(history, boxes)
        if gain >= enough:
            return None
        why = f"expected hypervolume gain {gain:.2g}/s, below the threshold {enough:.2g}/s"
        return stop_behind(row, epoch, history, better, losses, why=why, threshold=losses[better].min())

    def resumes(self, history: History, *, last: bool) -> int | None:
        """The paused trial with the highest EHVI per second, if that is above the study's mean gain per second.

        With ``last``, ``RESUME_MARGIN * patience`` times the mean is enough.
        """
        rows = np.flatnonzero(history.paused)
        if not len(rows) or np.count_nonzero(history.complete) < self.first:
            return None
        boxes = BoxDecomposition(history)
        gains = ehvi_per_second(rows, history, boxes)
        best = int(np.argmax(gains))
        enough = (RESUME_MARGIN * self.patience if last else 1.0) * mean_gain_per_second(history, boxes)
        return int(history.numbers[rows[best]]) if gains[best] > enough else None


def ehvi_per_second(rows: NDArray[np.intp], history: History, boxes: BoxDecomposition) -> Floats:
    """EHVI ``(rows,)`` of trials in training or paused, per second of their remaining training."""
    mean, std = extrapolate_final_loss(history, rows)
    seconds = np.maximum(history.seconds_left[rows], 1e-9)
    gains = boxes.expected_hypervolume_improvement(history.costs[rows], mean, STD_SCALE * std)
    return np.asarray(gains / seconds)


def mean_gain_per_second(history: History, boxes: BoxDecomposition) -> float:
    """The study's hypervolume divided by all seconds of training so far."""
    seconds = float(history.seconds.sum())
    return boxes.hypervolume / seconds if seconds else 0.0
