"""A tabular benchmark: the recorded learning curves of all architectures of a small space, to replay searches on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from search.pareto import Floats
from search.study.records import Direction, Objectives
from spaces.architecture import key
from spaces.dimensions import ConfigError


@dataclass(frozen=True)
class Table:
    """Learning curves, costs and times of all architectures of a space, trained with each of several seeds, the worlds.

    ``curves[world][architecture][epoch]`` are metrics, ``seconds[architecture]`` CPU-seconds per epoch: a number, or
    one for each epoch. ``cost`` names the objective besides the metric, ``aliases`` further architectures that equal
    that of a row.
    """

    name: str
    space: Mapping[str, Any]
    metric: str
    direction: Direction
    chance: float
    best: float
    architectures: Sequence[Mapping[str, Any]]
    parameters: Sequence[Mapping[str, Any]]
    costs: Sequence[Mapping[str, float]]
    curves: Sequence[Sequence[Sequence[float]]]
    seconds: Sequence[float | Sequence[float]]
    cost: str = "latency_ms"
    aliases: Sequence[tuple[Mapping[str, Any], int]] = ()

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of every architecture, by its key."""
        aliases = {key(architecture): row for architecture, row in self.aliases}
        return aliases | {key(architecture): row for row, architecture in enumerate(self.architectures)}

    @cached_property
    def objectives(self) -> Objectives:
        """The metric and ``cost``; the reference point is slightly above the highest cost."""
        ceiling = 1.001 * max(each[self.cost] for each in self.costs)
        return Objectives(self.metric, self.direction, (self.cost,), self.chance, self.best, (ceiling,))

    @cached_property
    def end_seconds(self) -> Floats:
        """``(architectures, epochs)``: CPU-seconds from the start of a training to the end of each epoch."""
        epochs = len(self.curves[0][0])
        seconds = np.array(self.seconds, dtype=np.float64).reshape(len(self.architectures), -1)
        return np.cumsum(np.broadcast_to(seconds, (len(self.architectures), epochs)), axis=1)

    def finals(self, world: int) -> Floats:
        """``(architectures,)``: the final metrics."""
        return np.array([curve[-1] for curve in self.curves[world]])

    def points(self, world: int) -> Floats:
        """``(architectures, 2)``: final loss and cost; lower is better."""
        costs = [each[self.cost] for each in self.costs]
        return np.column_stack([[self.objectives.loss(metric) for metric in self.finals(world)], costs])


def write(table: Table, path: Path) -> None:
    """Write compressed JSON; the same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(json.dumps(asdict(table), sort_keys=True, separators=(",", ":")).encode())


def read(path: Path) -> Table:
    """Read a table from its file.

    Raises:
        ConfigError: the file does not exist or is no table.
    """
    try:
        with gzip.open(path) as file:
            return Table(**json.load(file))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: no recorded table ({getattr(error, 'strerror', None) or error}); give one of search.tables"
        ) from None
