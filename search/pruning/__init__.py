"""Early stopping of trials in a study of one metric against costs: one rule a file, under the contract stated here.

A rule is a pure function of the recorded learning curves and costs. It does not use Optuna, a clock or state of its
own, so the same records give the same decision in every worker and after a crash. It is constructed by keyword from
its YAML and raises ``ValueError`` for invalid settings.

The costs of a trial are known before its first epoch and never change; only the metric is learned. So a rule is in
the end a threshold for the metric, set by trials that cost no more.
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
from spaces.dimensions import check_whole

MAX_LISTED = 3  # better trials that a reason lists; it counts the others
MAX_STORED = 20  # better trials whose numbers are stored with a stop


class Pruner(ABC):
    """Decides whether a running trial is stopped, and which stopped trial is resumed.

    Attributes:
        pauses: whether stopped trials may be resumed later; if so, they leave a checkpoint.
    """

    pauses = False

    @final
    def should_stop(self, trial: Record, history: History) -> Stop | None:
        """The reason to stop ``trial`` now, or None to go on.

        Called before training, with an empty curve, and after every epoch, whose metric is the last entry of the
        curve. ``history`` holds the trials of the study in any state and order; ``trial`` is added to it or updated.
        A trial whose metric is NaN or infinite is stopped, whatever the rule.
        """
        history.add(trial)
        epoch, metric = trial.curve[-1] if trial.curve else (0, 0.0)
        if not math.isfinite(metric):
            return Stop(f"epoch {epoch}: {history.objectives.metric} is {metric}", epoch)
        return self.decide(history.row(trial.number), epoch, history)

    @abstractmethod
    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """The rule itself, for the trial in a row of ``history`` that was last evaluated after ``epoch``.

        ``epoch`` is 0 before training; otherwise the row's loss at this epoch is finite.
        """

    def resumes(self, history: History, *, last: bool) -> int | None:
        """The number of a stopped trial to resume instead of starting a new one; None for none, the default.

        ``last`` says that no new trial will be started any more.
        """
        return None


class SuccessiveHalving(Pruner):
    """Asynchronous successive halving: at the rungs, epochs ``min_epochs * eta**k``, the best ``1 / eta`` go on.

    Args:
        eta: reduction factor.
        min_epochs: the first rung.
    """

    def __init__(self, *, eta: int, min_epochs: int) -> None:
        check_whole(2, eta=eta)
        check_whole(1, min_epochs=min_epochs)
        self.eta, self.min_epochs = eta, min_epochs

    def is_rung(self, epoch: int) -> bool:
        """Whether trials are compared after ``epoch``."""
        rung = self.min_epochs
        while rung < epoch:
            rung *= self.eta
        return rung == epoch

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop at a rung unless among its best ``ceil(n / eta)``; go on between rungs and before training."""
        if not self.is_rung(epoch):
            return None
        losses = history.losses_at(epoch)
        rows = np.flatnonzero(~np.isnan(losses))
        return self.decide_at_rung(row, rows[np.argsort(history.numbers[rows])], epoch, history)

    @abstractmethod
    def decide_at_rung(self, row: int, rows: NDArray[np.intp], epoch: int, history: History) -> Stop | None:
        """The comparison with ``rows``, all trials ever evaluated at this rung in order of trial number."""


def better_at_no_higher_cost(row: int, losses: Floats, history: History, *, slack: float = 0.0) -> NDArray[np.intp]:
    """The rows whose ``losses`` ``(n,)`` are more than ``slack`` below that of ``row``, at no higher cost."""
    return np.flatnonzero(history.cheaper_or_equal(row) & (losses < losses[row] - slack))


def stop_behind(
    row: int,
    epoch: int,
    history: History,
    better: NDArray[np.intp],
    losses: Floats,
    *,
    why: str = "",
    threshold: float | None = None,
    label: str = "better at no higher cost",
) -> Stop:
    """The stop of a trial because of better ones.

    Args:
        row: of the trial in ``history``.
        epoch: after which it is stopped; 0 is before training.
        history: the study.
        better: the rows of the better trials.
        losses: ``(n,)`` by which the better ones are ranked; ties go to the earlier trial.
        why: follows the metric in the reason.
        threshold: the loss that would have sufficed.
        label: introduces the better trials in the reason.
    """
    metric = history.objectives.loss  # it is its own inverse
    order = np.lexsort((history.numbers[better], losses[better]))
    numbers = [int(number) for number in history.numbers[better[order]]]
    reason = "before training"
    if epoch:
        reason = f"epoch {epoch}: {history.objectives.metric} {metric(history.losses_at(epoch)[row]):.4g}"
    if why:
        reason += f"{',' if epoch else ':'} {why}"
    if numbers:
        listed = ", ".join(map(str, numbers[:MAX_LISTED]))
        more = f" and {len(numbers) - MAX_LISTED} more" if len(numbers) > MAX_LISTED else ""
        reason += f"; {label}: trial{'s' * (len(numbers) > 1)} {listed}{more}"
    return Stop(
        reason,
        epoch,
        threshold=None if threshold is None else metric(float(threshold)),
        beaten_by=tuple(numbers[:MAX_STORED]),
    )
