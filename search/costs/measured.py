"""Costs of architectures measured on this host."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.costs import Costs
from search.costs.counted import count
from search.costs.latency import FlopsLatency, Latency, Meter
from search.study.records import Timing
from spaces.architecture import Architecture, network_key
from spaces.build import build, task_of
from spaces.tasks import Task


@dataclass(frozen=True)
class MeasuredCosts:
    """Builds networks, counts their parameters, FLOPs and memory, and measures their latency.

    Args:
        task: provides the inputs.
        meter: measures or computes latency.
        host: name of this host.
    """

    task: Task
    meter: Meter
    host: str = field(default_factory=platform.node)
    _counted: dict[str, dict[str, float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def costs(self, architecture: Architecture) -> Costs:
        """See :class:`~search.costs.CostModel`."""
        (timing,) = self.timings([architecture])
        return Costs(self.counted(architecture), timing)

    def counted(self, architecture: Architecture) -> dict[str, float]:
        """Parameters, FLOPs and memory; counted once per network."""
        network = network_key(architecture)
        if network not in self._counted:
            self._counted[network] = count(build(dict(architecture), self.task), task_of(architecture, self.task))
        return self._counted[network]

    def timings(self, architectures: Sequence[Architecture]) -> list[Timing]:
        """The latency of each architecture, measured in turns under the same conditions, and once per network."""
        networks = {network_key(architecture): architecture for architecture in architectures}
        built = [build(dict(architecture), self.task) for architecture in networks.values()]
        tasks = [task_of(architecture, self.task) for architecture in networks.values()]
        latencies = dict(zip(networks, self.meter.measure_all(built, tasks), strict=True))
        at = time.time()
        return [self._timing(architecture, latencies[network_key(architecture)], at) for architecture in architectures]

    def _timing(self, architecture: Architecture, latency: Latency, at: float) -> Timing:
        epoch_s = 0.0
        if isinstance(self.meter, FlopsLatency):  # the backward pass has twice the FLOPs of the forward pass
            flops = 3 * self.counted(architecture)["flops"] * self.task.steps("train", 1)
            epoch_s = flops / self.meter.gflops_per_s / 1e9
        return Timing(latency.ms, latency.spread, self.host, at, latency.reference_ms, epoch_s)
