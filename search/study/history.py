"""A study as arrays, one row a trial: what pruners, the choice of the next trial and replays read.

Rows are added and replaced one at a time, so that a decision never reads all records again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, Mask
from search.study.records import Objectives, Record, State

EMPTY: dict[str, Any] = {  # what a row holds besides costs and losses, with what stands there at first
    "numbers": np.intp(0),
    "finals": math.inf,
    "complete": False,
    "paused": False,
    "epochs": np.intp(0),
    "seconds": 0.0,
    "planned": math.nan,
}


class History:
    """The trials of a study, ``n`` of them, in the order in which they were added.

    Losses are metrics turned so that less is better.
    """

    def __init__(self, objectives: Objectives) -> None:
        self.objectives = objectives
        self._rows: dict[int, int] = {}
        self._records: dict[int, Record] = {}
        self._replaced: set[int] = set()  # numbers whose row another trial has taken
        self._columns = {name: np.full(0, value) for name, value in EMPTY.items()}
        self._costs = np.empty((0, len(objectives.costs)))
        self._losses = np.empty((0, 0))

    @classmethod
    def of(cls, records: Iterable[Record], objectives: Objectives) -> Self:
        """The history that holds ``records``."""
        history = cls(objectives)
        for record in records:
            history.add(record)
        return history

    def add(self, record: Record) -> None:
        """Add a trial, or put it in the place of what was known of it or of the trial that it replaces."""
        if self._records.get(record.number) is record or record.number in self._replaced:
            return
        if record.replaces in self._rows:
            self._rows[record.number] = self._rows.pop(record.replaces)
            del self._records[record.replaces]
            self._replaced.add(record.replaces)
        self._records[record.number] = record
        row = self._rows.setdefault(record.number, len(self._rows))
        longest = max((epoch for epoch, _ in record.curve), default=0)
        self._make_room(row + 1, longest)
        self._costs[row] = [record.costs.get(name, math.inf) for name in self.objectives.costs]
        losses = self._losses[row]
        losses[:] = math.nan
        for epoch, metric in record.curve:  # of an epoch that stands there twice the later entry counts
            losses[epoch - 1] = self.objectives.loss(metric) if math.isfinite(metric) else math.inf
        point = self.objectives.point(record)
        epochs = record.epochs
        values = {
            "numbers": record.number,
            "complete": point is not None,
            "finals": math.inf if point is None else point[0],
            "paused": record.state == State.PAUSED,
            "epochs": epochs,
            "seconds": record.cpu_seconds[-1] if record.cpu_seconds else float(epochs),
            "planned": record.architecture.get("train", {}).get("epochs", math.nan),
        }
        for name, value in values.items():
            self._columns[name][row] = value

    def _make_room(self, rows: int, epochs: int) -> None:
        held, width = self._losses.shape
        if rows <= held and epochs <= width:
            return
        more = 2 * rows if rows > held else held
        losses = np.full((more, max(width, epochs)), math.nan)
        losses[:held, :width] = self._losses
        self._losses = losses
        self._costs = np.concatenate([self._costs, np.full((more - held, self._costs.shape[1]), math.inf)])
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.full(more - held, EMPTY[name])])

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def row(self, number: int) -> int:
        """The row of a trial."""
        return self._rows[number]

    def record(self, number: int) -> Record:
        """What was last added of a trial."""
        return self._records[number]

    def records(self) -> list[Record]:
        """What was last added of every trial, in the order of rows."""
        return [self._records[number] for number in sorted(self._rows, key=self._rows.__getitem__)]

    @property
    def numbers(self) -> NDArray[np.intp]:
        """``(n,)``: the trials' numbers."""
        return self._columns["numbers"][: len(self)]

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
        return self._columns["finals"][: len(self)]

    @property
    def complete(self) -> Mask:
        """``(n,)``: which are complete, with a finite metric."""
        return self._columns["complete"][: len(self)]

    @property
    def paused(self) -> Mask:
        """``(n,)``: which were stopped with a checkpoint, so that they can be resumed."""
        return self._columns["paused"][: len(self)]

    @property
    def epochs(self) -> NDArray[np.intp]:
        """``(n,)``: how many epochs they were trained."""
        return self._columns["epochs"][: len(self)]

    @property
    def seconds(self) -> Floats:
        """``(n,)``: CPU-seconds of their training so far; where unknown, epochs."""
        return self._columns["seconds"][: len(self)]

    @property
    def seconds_left(self) -> Floats:
        """``(n,)``: what the rest of their training would take at their own speed; NaN where none has begun."""
        planned = self._columns["planned"][: len(self)]
        planned = np.where(np.isnan(planned), self._losses.shape[1], planned)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.seconds / self.epochs * np.maximum(planned - self.epochs, 0))

    def losses_at(self, epoch: int) -> Floats:
        """``(n,)``: the losses after ``epoch``; NaN where a trial was not judged there."""
        if not 1 <= epoch <= self._losses.shape[1]:
            return np.full(len(self), math.nan)
        return self.losses[:, epoch - 1]

    def cheaper_or_equal(self, row: int) -> Mask:
        """Which other trials cost no more than a row's in any cost."""
        mask = (self.costs <= self.costs[row]).all(axis=1)
        mask[row] = False
        return np.asarray(mask)
