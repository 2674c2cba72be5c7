"""Rules that stop hopeless trials: one file each, under one contract, stated here.

A rule is a pure decision over recorded rungs: it knows nothing of Optuna, reads no clock and keeps no state, so that
the same records always give the same answer, in whatever worker and after whatever crash. It is constructed by keyword
from its YAML and raises ``ValueError`` there for settings that make no sense.

The costs of a trial are known before its first epoch and never change; only the metric is learned. So a rule is, in the
end, a threshold for the metric: what trials that cost no more have reached.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats
from search.study.history import History
from search.study.records import Record, Stop

NAMED = 3  # trials that a reason names; of the others it gives the number
KEPT = 20  # trials that a stop keeps the numbers of


class Pruner(ABC):
    """Decides whether a running trial goes on, and whether a stopped one is taken up again.

    Attributes:
        pauses: whether what it stops may go on later; if so, stopped trials leave a checkpoint.
    """

    pauses = False

    @final
    def stops(self, trial: Record, history: History) -> Stop | None:
        """Why to stop ``trial`` now; None to go on.

        Called once before training, with an empty curve, and then after every epoch, whose metric is the last one of
        the curve. ``history`` holds the study's trials in any state and order; what it knows of ``trial`` is brought
        up to date. With whatever rule, a metric that is NaN or infinite stops a trial: from there on it learns nothing.
        """
        history.add(trial)
        epoch, metric = trial.curve[-1] if trial.curve else (0, 0.0)
        if not math.isfinite(metric):
            return Stop(f"epoch {epoch}: {history.objectives.metric} is {metric}", epoch)
        return self.judge(history.row(trial.number), epoch, history)

    @abstractmethod
    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Do the work of :meth:`stops` for the trial in a row of ``history``, which was last judged after ``epoch``.

        ``epoch`` is 0 before training; else the row's loss there is finite.
        """

    def resumes(self, history: History, *, last: bool) -> int | None:
        """The number of a stopped trial to take up again rather than draw a new one; None for none.

        ``last`` says that no new one will be drawn. Unless a rule says otherwise, what is stopped stays so.
        """
        return None


def is_rung(epoch: int, *, eta: int, min_epochs: int) -> bool:
    """Whether successive halving judges after ``epoch``: at ``min_epochs * eta**k``."""
    rung = min_epochs
    while rung < epoch:
        rung *= eta
    return rung == epoch


def behind(row: int, epoch: int, beaters: NDArray[np.intp], history: History, *, slack: float = 0.0) -> Stop:
    """The stop of a row whose loss after ``epoch`` is worse than that of the rows ``beaters``, which cost no more."""
    losses = history.losses_at(epoch)
    metric = history.objectives.loss  # it turns a loss into the metric as well
    numbers = ranked(beaters, losses, history)
    return Stop(
        f"epoch {epoch}: {history.objectives.metric} {metric(losses[row]):.4g}; {better(numbers)}",
        epoch,
        threshold=metric(float(losses[beaters].max()) + slack),
        beaten_by=tuple(numbers[:KEPT]),
    )


def ranked(rows: NDArray[np.intp], losses: Floats, history: History) -> list[int]:
    """The trial numbers of ``rows`` by their ``losses`` ``(n,)``, the best first; a tie goes to the earlier trial."""
    order = np.lexsort((history.numbers[rows], losses[rows]))
    return [int(number) for number in history.numbers[rows[order]]]


def better(numbers: list[int]) -> str:
    """For people: who is better without costing more."""
    named = ", ".join(map(str, numbers[:NAMED]))
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"better at no higher cost: trial{'s' * (len(numbers) > 1)} {named}{more}"
