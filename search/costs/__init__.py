"""Costs known before training: counted ones, and latency measured so that it repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from search.study.records import Timing
from spaces.architecture import Architecture


class Costs(NamedTuple):
    """What one use of an untrained network costs."""

    counted: Mapping[str, float]  # parameters, flops, memory_mb
    timing: Timing


def excess_over_limits(costs: Mapping[str, float], limits: Mapping[str, float | None]) -> dict[str, float]:
    """By how much each cost that is known and limited is above its limit; 0 or less is within."""
    return {name: costs[name] - limit for name, limit in limits.items() if limit is not None and name in costs}


class CostModel(Protocol):
    """Tells costs: measured, or looked up in a recorded table."""

    @property
    def host(self) -> str:
        """Where latency is measured."""

    def costs(self, architecture: Architecture) -> Costs:
        """The costs of an architecture."""
