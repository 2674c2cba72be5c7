"""A tabular benchmark: the recorded learning curves of all architectures of a small space, to replay searches on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.pareto import Floats
from search.study.records import Direction, Objectives
from spaces.dimensions import ConfigError


@dataclass(frozen=True)
class Table:
    """Learning curves, costs and times of all architectures of a space, trained with each of several seeds, the worlds.

    ``curves[world][architecture][epoch]`` are metrics, ``seconds[architecture]`` CPU-seconds per epoch.
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
    seconds: Sequence[float]

    def objectives(self, costs: tuple[str, ...] = ("latency_ms",)) -> Objectives:
        """The metric and ``costs``; the reference point is slightly above the highest costs."""
        ceilings = tuple(1.001 * max(each[name] for each in self.costs) for name in costs)
        return Objectives(self.metric, self.direction, costs, self.chance, self.best, ceilings)

    def finals(self, world: int) -> Floats:
        """``(architectures,)``: the final metrics."""
        return np.array(self.curves[world])[:, -1]


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
        known = ", ".join(shipped())
        raise ConfigError(f"{path}: no such file; it must be a file that search.tables writes, or {known}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: no recorded table, as search.tables writes it: {getattr(error, 'strerror', None) or error}"
        ) from None


def shipped() -> dict[str, Path]:
    """The tables in this package, by name."""
    return {path.name.split(".")[0]: path for path in sorted((Path(__file__).parent / "recorded").glob("*.json.gz"))}
