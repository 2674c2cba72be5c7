"""Rules that stop hopeless trials: one file each, under one contract, stated here.

A rule is a pure decision over recorded rungs: it knows nothing of Optuna, reads no clock and keeps no state, so that
the same records always give the same answer, in whatever worker and after whatever crash. It is constructed by keyword
from its YAML and raises ``ValueError`` there for settings that make no sense.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats
from search.records import Objectives, Record


class Pruner(ABC):
    """Decides whether a running trial goes on."""

    @final
    def stops(self, trial: Record, others: Sequence[Record], objectives: Objectives) -> str | None:
        """The reason to stop ``trial`` now, for people; None to go on.

        Called once before training, with an empty curve, and then after every epoch, whose metric is the last one of
        the curve. ``others`` are the study's trials in any state and order; the trial itself may be among them and
        does not count twice. With whatever rule, a metric that is NaN or infinite stops a trial: from there on it
        learns nothing.
        """
        if trial.curve:
            epoch, metric = trial.curve[-1]
            if not math.isfinite(metric):
                return f"epoch {epoch}: {objectives.metric} is {metric}"
        return self.judge(trial, [other for other in others if other.number != trial.number], objectives)

    @abstractmethod
    def judge(self, trial: Record, others: Sequence[Record], objectives: Objectives) -> str | None:
        """Do the work of :meth:`stops`; the trial's last metric is finite and the trial is not among ``others``."""


class Rung(NamedTuple):
    """Everybody who was judged after the same epoch, in order of trial number.

    ``numbers`` ``(n,)`` are the trials', ``points`` ``(n, 1 + costs)`` are loss and costs, less is better.
    """

    numbers: NDArray[np.intp]
    points: Floats

    @classmethod
    def read(cls, epoch: int, trials: Iterable[Record], objectives: Objectives) -> Rung:
        """Of ``trials``, in any order, those judged after ``epoch``."""
        judged = [(trial, metric) for trial in trials if (metric := trial.metric_at(epoch)) is not None]
        points = np.empty((len(judged), 1 + len(objectives.costs)))
        points[:, 0] = [metric for _, metric in judged]
        points[:, 0] *= objectives.loss(1.0)
        for column, cost in enumerate(objectives.costs, start=1):
            points[:, column] = [trial.costs[cost] for trial, _ in judged]
        numbers = np.array([trial.number for trial, _ in judged], dtype=np.intp)
        order = numbers.argsort()
        return cls(numbers[order], points[order])
