"""A study as arrays, one row a trial: what pruners, the choice of the next trial and replays read.

Rows are added and replaced one at a time, so that a decision never reads all records again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, Mask
from search.records import Objectives, Record


class History:
    """The trials of a study, ``n`` of them, in the order in which they were added.

    Losses are metrics turned so that less is better.
    """

    def __init__(self, objectives: Objectives) -> None:
        self.objectives = objectives
        self._rows: dict[int, int] = {}
        self._records: dict[int, Record] = {}
        self._numbers = np.empty(0, dtype=np.intp)
        self._costs = np.empty((0, len(objectives.costs)))
        self._losses = np.empty((0, 0))
        self._finals = np.empty(0)
        self._complete = np.empty(0, dtype=np.bool_)
        self._paused = np.empty(0, dtype=np.bool_)
        self._seconds_left = np.empty(0)

    @classmethod
    def of(cls, records: Iterable[Record], objectives: Objectives) -> Self:
        """The history that holds ``records``."""
        history = cls(objectives)
        for record in records:
            history.add(record)
        return history

    def add(self, record: Record) -> None:
        """Add a trial, or put it in the place of what was known of it or of the trial that it replaces."""
        if self._records.get(record.number) is record:
            return
        if record.replaces in self._rows:
            self._rows[record.number] = self._rows.pop(record.replaces)
            del self._records[record.replaces]
        self._records[record.number] = record
        row = self._rows.setdefault(record.number, len(self._rows))
        longest = max((epoch for epoch, _ in record.curve), default=0)
        if row >= len(self._numbers) or longest > self._losses.shape[1]:
            self._grow(row + 1, longest)
        self._numbers[row] = record.number
        self._costs[row] = [record.costs.get(name, math.inf) for name in self.objectives.costs]
        losses = self._losses[row]
        losses[:] = math.nan
        for epoch, metric in record.curve:  # of an epoch that stands there twice the later entry counts
            losses[epoch - 1] = self.objectives.loss(metric) if math.isfinite(metric) else math.inf
        point = self.objectives.point(record)
        self._complete[row] = point is not None
        self._finals[row] = math.inf if point is None else point[0]
        self._paused[row] = record.state == "pruned" and bool(record.curve) and math.isfinite(record.curve[-1][1])
        self._seconds_left[row] = _seconds_left(record)

    def _grow(self, rows: int, epochs: int) -> None:
        old, known = self._losses.shape, len(self._numbers)
        capacity = max(known, 2 * rows if rows > known else known)
        self._numbers = np.resize(self._numbers, capacity)
        self._costs = np.resize(self._costs, (capacity, self._costs.shape[1]))
        self._finals = np.resize(self._finals, capacity)
        self._complete = np.resize(self._complete, capacity)
        self._paused = np.resize(self._paused, capacity)
        self._seconds_left = np.resize(self._seconds_left, capacity)
        losses = np.full((capacity, max(old[1], epochs)), math.nan)
        losses[: old[0], : old[1]] = self._losses
        self._losses = losses

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def numbers(self) -> NDArray[np.intp]:
        """``(n,)``: the trials' numbers."""
        return self._numbers[: len(self)]

    @property
    def costs(self) -> Floats:
        """``(n, costs)``: in the order of the objectives'; infinite where unknown."""
        return self._costs[: len(self)]

    @property
    def losses(self) -> Floats:
        """``(n, epochs)``: after each epoch; NaN where it was not judged, infinite where its metric was lost."""
        return self._losses[: len(self)]

    @property
    def finals(self) -> Floats:
        """``(n,)``: the final losses of complete trials; infinite for the others."""
        return self._finals[: len(self)]

    @property
    def complete(self) -> Mask:
        """``(n,)``: which are complete, with a finite metric."""
        return self._complete[: len(self)]

    @property
    def paused(self) -> Mask:
        """``(n,)``: which were stopped after some epoch with a finite metric: those can go on."""
        return self._paused[: len(self)]

    @property
    def seconds_left(self) -> Floats:
        """``(n,)``: CPU-seconds that the rest of a training would take; 1 where nothing is known of it."""
        return self._seconds_left[: len(self)]

    def row(self, number: int) -> int:
        """The row of a trial."""
        return self._rows[number]

    def record(self, number: int) -> Record:
        """What was last added of a trial."""
        return self._records[number]

    def records(self) -> list[Record]:
        """What was last added of every trial."""
        return list(self._records.values())

    def losses_at(self, epoch: int) -> Floats:
        """``(n,)``: the losses after ``epoch``; NaN where a trial was not judged there."""
        if not 1 <= epoch <= self._losses.shape[1]:
            return np.full(len(self), math.nan)
        return self.losses[:, epoch - 1]

    def no_dearer(self, row: int) -> Mask:
        """Which other trials cost no more than a row's in any cost."""
        mask = (self.costs <= self.costs[row]).all(axis=1)
        mask[row] = False
        return np.asarray(mask)


def _seconds_left(record: Record) -> float:
    seconds, epochs = record.details.get("cpu_seconds"), record.architecture.get("train", {}).get("epochs")
    if not seconds or not epochs:
        return 1.0
    return float(seconds[-1]) / len(seconds) * max(epochs - len(seconds), 0)
