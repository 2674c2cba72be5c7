"""Costs of architectures, counted and measured."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from search.costs import Costs
from search.costs.counted import count, evaluating
from search.costs.energy import millijoules, needed_packages
from search.costs.exclusive import measurement_lock
from search.costs.latency import FlopsLatency
from search.costs.meter import Latency, Meter
from search.costs.modes import MODES
from search.costs.parts import SummedFlops
from search.costs.runtimes import EAGER, NoRuntimeError, in_runtimes
from search.study.records import Timing
from spaces.architecture import Architecture, describe, network_key
from spaces.build import build, task_of
from spaces.dimensions import ConfigError
from spaces.space import Space
from spaces.tasks import Task

ENERGY = "energy_mj"
MEASURED = ("latency_ms", ENERGY)  # the other costs are counted
MAX_PROGRAMS = 16  # networks whose programs are kept: enough for most fronts, which are measured again


@dataclass(frozen=True)
class MeasuredCosts:
    """Builds networks, counts their parameters, FLOPs and memory, and measures their latency.

    Args:
        task: provides the inputs.
        meter: measures or computes latency.
        host: name of the machine that is measured; empty for that of ``meter``.
        also: costs that are counted on request alone, see :data:`search.costs.counted.ON_REQUEST`, or ``energy_mj``,
            which is measured.

    Raises:
        ConfigError: the energy cannot be measured.
    """

    task: Task
    meter: Meter
    host: str = ""
    also: Collection[str] = ()
    _counted: dict[str, dict[str, float]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _flops: SummedFlops = field(init=False, repr=False, compare=False)
    _programs: dict[str, dict[str, nn.Module]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", self.host or self.meter.host)
        object.__setattr__(self, "_flops", SummedFlops(self.task))
        if ENERGY in self.also:
            needed_packages()

    def costs(self, architecture: Architecture) -> Costs:
        """See :class:`~search.costs.CostModel`."""
        (timing,) = self.timings([architecture])
        return Costs({**self.counted(architecture), **self.energy(architecture)}, timing)

    def energy(self, architecture: Architecture) -> dict[str, float]:
        """The energy of a prediction in PyTorch on this machine's CPU, if it was asked for."""
        if ENERGY not in self.also:
            return {}
        network, task = build(dict(architecture), self.task), task_of(architecture, self.task)
        with evaluating(network), measurement_lock():
            return {ENERGY: millijoules(MODES["forward"](network, task, task.sample()), needed_packages())}

    def counted(self, architecture: Architecture) -> dict[str, float]:
        """Parameters, FLOPs and memory; counted once per network."""
        network = network_key(architecture)
        if network not in self._counted:
            self._counted[network] = count(
                build(dict(architecture), self.task), task_of(architecture, self.task), self.also
            )
        return self._counted[network]

    def counted_of_candidate(self, architecture: Architecture) -> dict[str, float]:
        """The FLOPs, which costs are predicted from; if another counted cost was asked for, all of :meth:`counted`.

        Of many candidates the FLOPs alone take far less time than what depends on the whole network, such as its peak
        memory.
        """
        if network_key(architecture) in self._counted or set(self.also) - {*MEASURED, "flops"}:
            return self.counted(architecture)
        flops = self._flops.of(architecture)
        return self.counted(architecture) if flops is None else {"flops": float(flops)}

    def timings(self, architectures: Sequence[Architecture]) -> list[Timing]:
        """The latency of each architecture in its fastest run-time; the same networks are measured once.

        All are measured in turns, under the same conditions.

        Raises:
            NoRuntimeError: an architecture can be executed in none of the run-times.
        """
        variants = {
            (network, runtime): (variant, task_of(architecture, self.task))
            for network, architecture in {network_key(each): each for each in architectures}.items()
            for runtime, variant in self._variants(architecture).items()
        }
        built, tasks = [network for network, _ in variants.values()], [task for _, task in variants.values()]
        latencies = self.meter.measure_all(built, tasks)
        measured: dict[str, dict[str, Latency]] = {}
        for (network, runtime), latency in zip(variants, latencies, strict=True):
            measured.setdefault(network, {})[runtime] = latency
        at = time.time()
        return [self._timing(architecture, measured[network_key(architecture)], at) for architecture in architectures]

    def _variants(self, architecture: Architecture) -> dict[str, nn.Module]:
        """The untrained network in each run-time that can execute it; programs are kept: writing one takes seconds."""
        network = network_key(architecture)
        if network in self._programs:
            return self._programs[network]
        built = build(dict(architecture), self.task)
        if self.meter.runtimes == (EAGER,):
            return {EAGER: built}
        task = task_of(architecture, self.task)
        variants = in_runtimes(built.eval(), dict(architecture), task, self.meter.runtimes, threads=self.meter.threads)
        self._programs[network] = variants
        if len(self._programs) > MAX_PROGRAMS:
            del self._programs[next(iter(self._programs))]
        return variants

    def _timing(self, architecture: Architecture, latencies: Mapping[str, Latency], at: float) -> Timing:
        epoch_s = 0.0
        if isinstance(self.meter, FlopsLatency):  # the backward pass has twice the FLOPs of the forward pass
            flops = 3 * self.counted(architecture)["flops"] * self.task.steps("train", 1)
            epoch_s = flops / self.meter.gflops_per_s / 1e9
        runtime = min(latencies, key=lambda name: latencies[name].ms)
        each_ms = {name: latency.ms for name, latency in latencies.items()} if len(self.meter.runtimes) > 1 else {}
        fastest = latencies[runtime]
        return Timing(fastest.ms, fastest.spread, self.host, at, fastest.reference_ms, epoch_s, runtime, each_ms)


def largest_costs(space: Space, model: MeasuredCosts, names: Sequence[str]) -> list[float]:
    """The highest costs of the space's largest architectures, for the reference point of the hypervolume.

    Raises:
        ConfigError: none of them can be executed in any of the run-times.
    """
    largest, problem = [], ""
    counts = bool(set(names) - set(MEASURED))  # of a generation, counting takes ten times as long as timing
    for architecture in space.largest():
        try:
            (timing,) = model.timings([architecture])
            counted = model.counted(architecture) if counts else {}
            largest.append({"latency_ms": timing.ms, **counted, **model.energy(architecture)})
        except NoRuntimeError as error:
            problem = f"{describe(architecture)}: {error}"
    if not largest:
        raise ConfigError(f"latency: no mechanism of the space can be measured: {problem}")
    return [max(each[name] for each in largest) for name in names]
