"""A learner and a cost model that look up what a table recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from search.costs import Costs
from search.replay.table import Table
from search.study.records import Record, Timing
from search.training import Epoch
from search.training.divergence import DivergenceError
from spaces.architecture import Architecture, key


class TableLearner:
    """Looks up learning curves: a :class:`~search.training.Learner` and a :class:`~search.costs.CostModel`."""

    host: str = "table"

    def __init__(self, table: Table, world: int) -> None:
        self.table, self.world = table, world
        self._saved: dict[int, int] = {}  # epochs by number of the trial

    def row(self, name: str) -> int:
        """The row of an architecture, by its key.

        Raises:
            DivergenceError: it is not in the table, so counts as one that cannot be trained.
        """
        row = self.table.rows.get(name)
        if row is None:
            raise DivergenceError("not in the table")
        return row

    def costs(self, architecture: Architecture) -> Costs:
        """See :class:`~search.costs.CostModel`; a table without latencies has 0."""
        costs = self.table.costs[self.row(key(architecture))]
        counted = {name: value for name, value in costs.items() if name != "latency_ms"}
        return Costs(counted, Timing(costs.get("latency_ms", 0.0), spread=0.0, host=self.host, at=0.0))

    def counted(self, architecture: Architecture) -> dict[str, float] | None:
        """The costs that are known without measuring; None if the table has no such architecture."""
        row = self.table.rows.get(key(architecture))
        if row is None:
            return None
        return {name: value for name, value in self.table.costs[row].items() if name != "latency_ms"}

    def saved_epochs(self, record: Record) -> int:
        """See :class:`~search.training.Learner`."""
        return self._saved.get(record.number, 0)

    def discard(self, number: int) -> None:
        """See :class:`~search.training.Learner`."""
        self._saved.pop(number, None)

    def train(self, record: Record, *, resume: bool, trained: Record | None = None) -> nullcontext[TableTraining]:
        """See :class:`~search.training.Learner`."""
        row = self.row(record.key)

        def save(epoch: int) -> None:
            self._saved[record.number] = epoch

        curve, seconds = self.table.curves[self.world][row], self.table.end_seconds[row].tolist()
        return nullcontext(TableTraining(curve, seconds, record.epochs, save))


@dataclass
class TableTraining:
    """The epochs of a learning curve after the first ``done``; see :class:`~search.training.Training`.

    ``seconds`` are those from the start to the end of each epoch.
    """

    curve: Sequence[float]
    seconds: Sequence[float]
    done: int
    on_save: Callable[[int], None]
    overhead: float = 0.0

    @property
    def epochs(self) -> int:
        """Of the whole training."""
        return len(self.curve)

    @property
    def metric(self) -> float:
        """Of the last epoch."""
        return self.curve[-1]

    def __iter__(self) -> Iterator[Epoch]:
        for epoch in range(self.done + 1, self.epochs + 1):
            self.done = epoch
            yield Epoch(epoch, self.curve[epoch - 1], self.seconds[epoch - 1])

    def save(self, *, if_due: bool = False) -> None:
        """Note the epoch."""
        self.on_save(self.done)

    def save_weights(self) -> str:
        """There are none."""
        return ""

    def evaluate(self, split: str) -> dict[str, float]:
        """None are recorded."""
        return {}
