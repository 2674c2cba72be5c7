"""Pause what gains too slowly: the default.

A trial goes on while the hypervolume it is expected to add for each second of the rest of its training is not much less
than what the study has gained for each second so far; see :mod:`search.acquisition`. The deviations of what is expected
are doubled, as they are where it is chosen what comes next: who learns late, as softmax attention does, has only them
to speak for it. A paused trial keeps its checkpoint and is taken up again when nothing better is left: the pace falls
as the front fills, so nothing is lost for good.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.acquisition import BOLDNESS, Cells, ends
from search.pareto import Floats
from search.pruning import KEPT, Pruner, better, ranked
from search.pruning.ceiling import Ceiling
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import check_number, check_whole

AGAIN = 2.0  # times the patience: at once below it again, a trial would be paused after each epoch


class GainRate(Pruner):
    """Pause a trial whose expected gain a second is below ``patience`` times the study's pace.

    Before any epoch :class:`~search.pruning.ceiling.Ceiling` decides. A trial is never paused while fewer than
    ``first`` are complete, nor one that no other of no higher cost is ahead of after the same epoch.

    Args:
        patience: the share of the pace that is enough to go on; 0 never pauses.
        first: complete trials from which gains are read before any is paused.
        target: as of :class:`~search.pruning.ceiling.Ceiling`.
    """

    pauses = True

    def __init__(self, *, patience: float, first: int, target: float | None = None) -> None:
        check_number(0.0, patience=patience)
        check_whole(1, first=first)
        self.patience, self.first, self.ceiling = patience, first, Ceiling(target=target)

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop behind the ceiling; pause what gains too slowly."""
        if stop := self.ceiling.judge(row, epoch, history):
            return stop
        if epoch == 0 or np.count_nonzero(history.complete) - history.complete[row] < self.first:
            return None
        losses = history.losses_at(epoch)
        ahead = np.flatnonzero(history.no_dearer(row) & (losses < losses[row]))
        if not len(ahead):
            return None
        cells = Cells(history)
        rate, bar = float(rates(np.array([row]), history, cells)[0]), self.patience * pace(history, cells)
        if rate >= bar:
            return None
        numbers, metric = ranked(ahead, losses, history), history.objectives.loss
        return Stop(
            f"epoch {epoch}: {history.objectives.metric} {metric(losses[row]):.4g} is expected to add {rate:.2g} of "
            f"the box a second, less than {bar:.2g}; {better(numbers)}",
            epoch,
            threshold=metric(float(losses[ahead].min())),
            beaten_by=tuple(numbers[:KEPT]),
        )

    def resumes(self, history: History, *, last: bool) -> int | None:
        """The paused trial that gains fastest, if faster than the study did so far, or at the end fast enough."""
        rows = np.flatnonzero(history.paused)
        if not len(rows) or np.count_nonzero(history.complete) < self.first:
            return None
        cells = Cells(history)
        fastest = rates(rows, history, cells)
        best = int(np.argmax(fastest))
        enough = (AGAIN * self.patience if last else 1.0) * pace(history, cells)
        return int(history.numbers[rows[best]]) if fastest[best] > enough else None


def rates(rows: NDArray[np.intp], history: History, cells: Cells) -> Floats:
    """The expected gain ``(rows,)`` of trials that have begun, for each second of the rest of their training."""
    mean, deviation = ends(history, rows)
    seconds = np.maximum(history.seconds_left[rows], 1e-9)
    return np.asarray(cells.expected_gain(history.costs[rows], mean, BOLDNESS * deviation) / seconds)


def pace(history: History, cells: Cells) -> float:
    """The hypervolume gained so far for each second of training."""
    seconds = float(history.seconds.sum())
    return cells.hypervolume / seconds if seconds else 0.0
