"""Costs of architectures on this host: the network is built, counted and timed."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.costs import Costs
from search.costs.counted import count
from search.costs.latency import Meter
from search.study.records import Timing
from spaces.architecture import Architecture
from spaces.build import build
from spaces.tasks import Task


@dataclass(frozen=True)
class MeasuredCosts:
    """Counts and times networks.

    Args:
        task: whose inputs they are given.
        meter: measures or computes latency.
        host: this one.
    """

    task: Task
    meter: Meter
    host: str = field(default_factory=platform.node)

    def costs(self, architecture: Architecture) -> Costs:
        """See :class:`~search.costs.CostModel`."""
        (timing,) = self.timings([architecture])
        return Costs(count(build(architecture, self.task), self.task), timing)

    def timings(self, architectures: Sequence[Architecture]) -> list[Timing]:
        """The latencies of several architectures, measured in turns so that all meet the same conditions."""
        networks = [build(dict(architecture), self.task) for architecture in architectures]
        latencies = self.meter.measure_all(networks, self.task)
        at = time.time()
        return [Timing(each.ms, each.spread, self.host, at, each.reference_ms) for each in latencies]
