"""Milliseconds of one forward pass, timed so that they repeat, or computed where a clock has no place.

A disturbance only ever adds time, so the minimum over many short repeats is what a quiet machine would show; the
repeats are interleaved and come in visits some time apart, since one disturbance outlasts many repeats. Three things
make that likely: one measurement at a time on a host, training at the lowest priority (both
:mod:`search.costs.exclusive`), and further visits in the place of those that were disturbed. Signs of that are a small
reference computation that ran slower than in other visits, and time that passed without this thread running; that time
is left out.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from search.costs.counted import evaluating, flops
from search.costs.exclusive import exclusive, torch_threads
from spaces.tasks import Task

TOLERANCE = 0.1  # a visit this much slower, as a ratio, was disturbed
FEWEST = 2  # repeats in a visit, however slow the network


@dataclass(frozen=True)
class Latency:
    """What one forward pass of a whole batch takes, and how sure that is."""

    ms: float  # per forward pass of the batch, not per sequence: the fastest of all visits
    spread: float  # how far the visits' fastest repeats lie apart, as a ratio to the fastest
    batch: int
    length: int
    threads: int
    visits_ms: tuple[float, ...] = ()  # of each visit, disturbed ones too, the fastest repeat
    disturbed: int = 0  # visits among these that something else slowed down


class Meter(ABC):
    """Tells the latency of networks on inputs as a task has them.

    Args:
        batch: sequences side by side in one forward pass.
        length: tokens a sequence; None for the task's full length.
    """

    def __init__(self, *, batch: int, length: int | None) -> None:
        _refuse_below(1, batch=batch, **({} if length is None else {"length": length}))
        self.batch, self.length = batch, length

    def measure(self, network: nn.Module, task: Task) -> Latency:
        """The latency of one network, which is left as it was."""
        return self.measure_all([network], task)[0]

    @abstractmethod
    def measure_all(self, networks: Sequence[nn.Module], task: Task) -> list[Latency]:
        """The latencies of several networks under the same conditions, in their order."""


class FlopsLatency(Meter):
    """Not measured: counted operations at a fixed speed. For tests and for runs that must repeat to the last digit.

    Args:
        batch: sequences side by side in one forward pass.
        length: tokens a sequence; None for the task's full length.
        gflops_per_s: 10^9 floating-point operations a second.
    """

    def __init__(self, *, batch: int = 1, length: int | None = None, gflops_per_s: float = 10.0) -> None:
        super().__init__(batch=batch, length=length)
        if not gflops_per_s > 0:
            raise ValueError(f"gflops_per_s={gflops_per_s}: it must be above 0")
        self.gflops_per_s = gflops_per_s

    def measure_all(self, networks: Sequence[nn.Module], task: Task) -> list[Latency]:
        """The latencies, of the operations that :func:`search.costs.counted.flops` counts."""
        inputs = task.sample(self.batch, self.length)
        batch, length = self.batch, self.length or task.spec.length
        times = [flops(network, inputs, use=task.predict) / self.gflops_per_s / 1e6 for network in networks]
        return [Latency(ms, spread=0.0, batch=batch, length=length, threads=1) for ms in times]


class Machine:
    """What a measurement knows of the machine it runs on; all times in seconds."""

    def wall(self) -> float:
        """Time that passed."""
        return time.perf_counter()

    def cpu(self) -> float:
        """Time that this thread ran."""
        return time.thread_time()

    def rest(self, seconds: float) -> None:
        """Leave the processor to others."""
        time.sleep(seconds)

    def reference(self) -> None:
        """About a tenth of a millisecond of arithmetic, whose duration tells of the machine alone."""
        for _ in range(4):
            _ = _MATRIX @ _MATRIX


_MATRIX = torch.full((96, 96), 1 / 96)


class MeasuredLatency(Meter):
    """Wall-clock time on this machine's processor.

    Args:
        batch: sequences side by side in one forward pass.
        length: tokens a sequence; None for the task's full length.
        threads: that torch may use.
        visits: undisturbed groups of repeats; up to as many again take the place of disturbed ones.
        repeats: forward passes in a visit at most.
        warmup: forward passes before the first visit at most.
        seconds: a network's share of time in all regular visits at most, short of two repeats each.
        rest_s: seconds between two visits.
        machine: to measure on; a test's own has known times.
    """

    def __init__(
        self,
        *,
        batch: int = 1,
        length: int | None = None,
        threads: int = 1,
        visits: int = 3,
        repeats: int = 50,
        warmup: int = 5,
        seconds: float = 0.25,
        rest_s: float = 0.03,
        machine: Machine | None = None,
    ) -> None:
        super().__init__(batch=batch, length=length)
        _refuse_below(1, threads=threads, visits=visits, repeats=repeats)
        _refuse_below(0, warmup=warmup, seconds=seconds, rest_s=rest_s)
        self.threads, self.visits, self.repeats, self.warmup = threads, visits, repeats, warmup
        self.seconds, self.rest_s = seconds, rest_s
        self.machine = machine or Machine()

    def measure_all(self, networks: Sequence[nn.Module], task: Task) -> list[Latency]:
        """The latencies, all networks taking turns within each visit, so that what drifts drifts for all."""
        inputs = task.sample(self.batch, self.length)
        runs = [partial(task.predict, network, inputs) for network in networks]
        with ExitStack() as stack:
            for network in networks:
                _refuse_other_devices(network)
                stack.enter_context(evaluating(network))
            stack.enter_context(exclusive())
            stack.enter_context(torch_threads(self.threads))
            stack.enter_context(torch.inference_mode())
            histories = self._visit_all(runs)
        batch, length = self.batch, self.length or task.spec.length
        return [self._summary(visits, batch, length) for visits in histories]

    def _visit_all(self, runs: Sequence[Callable[[], object]]) -> list[list[_Visit]]:
        """Per run its visits: enough undisturbed ones, or twice as many altogether."""
        for run in runs:
            self._warm_up(run)
        histories: list[list[_Visit]] = [[] for _ in runs]
        for turn in range(2 * self.visits):
            due = [i for i, visits in enumerate(histories) if len(self._quiet(visits)) < self.visits]
            if not due:
                break
            if turn:
                self.machine.rest(self.rest_s)
            for i, visit in zip(due, self._visit([runs[i] for i in due]), strict=True):
                histories[i].append(visit)
        return histories

    def _warm_up(self, run: Callable[[], object]) -> None:
        start = self.machine.wall()
        for _ in range(self.warmup):
            run()
            if self.machine.wall() - start >= self.seconds / self.visits:
                break

    def _visit(self, runs: Sequence[Callable[[], object]]) -> list[_Visit]:
        """All runs in turn, as often as time allows, each round led by the reference."""
        best = [(float("inf"), float("inf"))] * (1 + len(runs))
        end = self.machine.wall() + len(runs) * self.seconds / self.visits
        for repeat in range(self.repeats):
            if repeat >= FEWEST and self.machine.wall() >= end:
                break
            for i, run in enumerate((self.machine.reference, *runs)):
                cpu, wall = self.machine.cpu(), self.machine.wall()
                run()
                wall, cpu = self.machine.wall() - wall, self.machine.cpu() - cpu
                best[i] = (min(best[i][0], wall), min(best[i][1], cpu))
        reference, *others = best
        return [_Visit(wall, cpu, reference[0]) for wall, cpu in others]

    def _quiet(self, visits: Sequence[_Visit]) -> list[_Visit]:
        """The undisturbed ones."""
        reference = min((visit.reference for visit in visits), default=0.0)
        return [
            visit for visit in visits if visit.reference <= reference * (1 + TOLERANCE) and not self._interrupted(visit)
        ]

    def _summary(self, visits: Sequence[_Visit], batch: int, length: int) -> Latency:
        quiet = self._quiet(visits)
        times = [self._seconds(visit) for visit in visits]
        return Latency(
            ms=1e3 * min(times),
            spread=max(self._seconds(visit) for visit in quiet or visits) / min(times) - 1,
            batch=batch,
            length=length,
            threads=self.threads,
            visits_ms=tuple(1e3 * seconds for seconds in times),
            disturbed=len(visits) - len(quiet),
        )

    def _interrupted(self, visit: _Visit) -> bool:
        """Whether others ran in between; unknown of several threads, whose work is not all this one's."""
        return self.threads == 1 and visit.wall > visit.cpu * (1 + TOLERANCE)

    def _seconds(self, visit: _Visit) -> float:
        """The clock's time; of an interrupted visit the thread's own, which is what the clock of an idle core shows."""
        return visit.cpu if self._interrupted(visit) else visit.wall


class _Visit(NamedTuple):
    """The fastest repeat, in seconds: by the wall clock, by this thread's, and the reference's."""

    wall: float
    cpu: float
    reference: float


def _refuse_below(least: int, **settings: float) -> None:
    for name, value in settings.items():
        if not value >= least:
            raise ValueError(f"{name}={value}: it must be at least {least}")


def _refuse_other_devices(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.device.type != "cpu":
            raise ValueError(f"a network on {parameter.device}: latency is measured on the processor, 'cpu'")
