"""A study as arrays with one row per trial, for pruners, samplers and replays.

Rows are added and updated one at a time, so that a decision does not read all records again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, Mask
from search.study.records import Objectives, Record, State

T = TypeVar("T")


class Prediction(NamedTuple):
    """What is predicted of an architecture before any trial."""

    damage: float  # the larger, the worse the final loss; in a unit of its own
    latency_ms: float


COLUMNS: dict[str, Any] = {  # columns besides costs and losses, with their initial values
    "numbers": np.intp(0),
    "finals": math.inf,
    "complete": False,
    "paused": False,
    "epochs": np.intp(0),
    "seconds": 0.0,
    "planned": math.nan,
}


class History:
    """The ``n`` trials of a study, in the order in which they were added.

    A loss is the metric, negated where it is maximized, so that lower is better.

    Attributes:
        available_s: seconds left for training; a paused trial that needs more is not resumed.
        budget_used: share of the run's time budget that is used up; 0 if there is none.
        prior: what is predicted of an architecture, by its parameters; None where nothing is.
    """

    def __init__(self, objectives: Objectives) -> None:
        self.objectives, self.available_s, self.budget_used = objectives, math.inf, 0.0
        self.prior: Callable[[Mapping[str, Any]], Prediction] | None = None
        self._rows: dict[int, int] = {}
        self._records: dict[int, Record] = {}
        self._columns = {name: np.full(0, value) for name, value in COLUMNS.items()}
        self._costs = np.empty((0, len(objectives.costs)))
        self._losses = np.empty((0, 0))
        self._derived: dict[str, tuple[int, Any]] = {}

    def derived(self, name: str, version: int, compute: Callable[[], T]) -> T:
        """What follows from the trials, kept under ``name`` until it is asked for in another version."""
        if name not in self._derived or self._derived[name][0] != version:
            self._derived[name] = version, compute()
        value: T = self._derived[name][1]
        return value

    @classmethod
    def of(cls, records: Iterable[Record], objectives: Objectives) -> Self:
        """A history of ``records``."""
        history = cls(objectives)
        for record in records:
            history.add(record)
        return history

    def add(self, record: Record) -> None:
        """Add a trial, or update its row."""
        if self._records.get(record.number) is record:
            return
        self._records[record.number] = record
        row = self._rows.setdefault(record.number, len(self._rows))
        last_epoch = max((epoch for epoch, _ in record.curve), default=0)
        self._grow(row + 1, last_epoch)
        self._costs[row] = [record.costs.get(name, math.inf) for name in self.objectives.costs]
        losses = self._losses[row]
        losses[:] = math.nan
        for epoch, metric in record.curve:  # the later entry of a repeated epoch counts
            losses[epoch - 1] = self.objectives.loss(metric) if math.isfinite(metric) else math.inf
        point = self.objectives.point(record)
        epochs, epoch_s = record.epochs, record.timing.epoch_s if record.timing else 0.0
        seconds = record.cpu_seconds[-1] if record.cpu_seconds else float(epochs)
        values = {
            "numbers": record.number,
            "complete": point is not None,
            "finals": math.inf if point is None else point[0],
            "paused": record.state == State.PAUSED and epochs > 0,
            "epochs": epochs,
            "seconds": epochs * epoch_s if epoch_s else seconds,
            "planned": record.architecture.get("train", {}).get("epochs", math.nan),
        }
        for name, value in values.items():
            self._columns[name][row] = value

    def _grow(self, rows: int, epochs: int) -> None:
        """Enlarge the arrays to at least ``rows`` trials of ``epochs`` epochs."""
        held, width = self._losses.shape
        if rows <= held and epochs <= width:
            return
        size = 2 * rows if rows > held else held
        losses = np.full((size, max(width, epochs)), math.nan)
        losses[:held, :width] = self._losses
        self._losses = losses
        self._costs = np.concatenate([self._costs, np.full((size - held, self._costs.shape[1]), math.inf)])
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.full(size - held, COLUMNS[name])])

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def row(self, number: int) -> int:
        """The row of a trial."""
        return self._rows[number]

    def record(self, number: int) -> Record:
        """The latest record of a trial."""
        return self._records[number]

    def records(self) -> list[Record]:
        """The latest record of every trial, in the order of rows."""
        return [self._records[number] for number in sorted(self._rows, key=self._rows.__getitem__)]

    @property
    def numbers(self) -> NDArray[np.intp]:
        """``(n,)``: trial numbers."""
        return self._columns["numbers"][: len(self)]

    @property
    def costs(self) -> Floats:
        """``(n, costs)``, in the order of the objectives; infinite where unknown."""
        return self._costs[: len(self)]

    @property
    def losses(self) -> Floats:
        """``(n, epochs)``: after each epoch; NaN where not evaluated, infinite where the metric was not finite."""
        return self._losses[: len(self)]

    @property
    def finals(self) -> Floats:
        """``(n,)``: the final losses of complete trials; infinite for the others."""
        return self._columns["finals"][: len(self)]

    @property
    def complete(self) -> Mask:
        """``(n,)``: whether a trial is complete with a finite metric."""
        return self._columns["complete"][: len(self)]

    @property
    def paused(self) -> Mask:
        """``(n,)``: whether a trial is paused and can be resumed: it has been trained, and it finishes in time."""
        paused: Mask = self._columns["paused"][: len(self)]
        return paused if math.isinf(self.available_s) else paused & (self.seconds_left <= self.available_s)

    @property
    def epochs(self) -> NDArray[np.intp]:
        """``(n,)``: the number of epochs trained."""
        return self._columns["epochs"][: len(self)]

    @property
    def seconds(self) -> Floats:
        """``(n,)``: CPU-seconds of training so far, computed where latencies are; the number of epochs if unknown."""
        return self._columns["seconds"][: len(self)]

    @property
    def planned(self) -> Floats:
        """``(n,)``: epochs of a whole training; if unknown, the most that any trial was trained."""
        planned = self._columns["planned"][: len(self)]
        return np.where(np.isnan(planned), self._losses.shape[1], planned)

    @property
    def seconds_left(self) -> Floats:
        """``(n,)``: CPU-seconds of the remaining epochs at the trial's own speed; NaN before the first one."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.seconds / self.epochs * np.maximum(self.planned - self.epochs, 0))

    def losses_at(self, epoch: int) -> Floats:
        """``(n,)``: the losses after ``epoch``; NaN where a trial was not evaluated."""
        if not 1 <= epoch <= self._losses.shape[1]:
            return np.full(len(self), math.nan)
        return self.losses[:, epoch - 1]

    def cheaper_or_equal(self, row: int) -> Mask:
        """``(n,)``: whether another trial costs no more than that of ``row`` in every cost."""
        mask = (self.costs <= self.costs[row]).all(axis=1)
        mask[row] = False
        return np.asarray(mask)
