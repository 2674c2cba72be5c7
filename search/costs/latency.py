"""Latency: milliseconds of one forward pass, measured robustly, or computed from FLOPs for reproducible runs.

Interference by other processes only ever adds time, so the minimum over many short repeats estimates the latency on an
idle machine. Repeats are grouped in rounds some time apart, because one disturbance outlasts many repeats; networks
measured together are interleaved. One measurement runs at a time on a host, and training has the lowest priority (both
:mod:`search.costs.exclusive`). A round is noisy, and replaced by a further one, if a small reference computation ran
slower than in other rounds or if the thread was preempted: more wall-clock time passed than CPU time. The wall-clock
time of a preempted round is not used.
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
from search.costs.exclusive import measurement_lock, torch_threads
from spaces.dimensions import check_above, check_number, check_whole
from spaces.tasks import Task

NOISE_TOLERANCE = 0.1  # a round that is slower by more than this ratio is noisy
MIN_REPEATS = 2  # in a round, however slow the network
MAX_BATCH = 4096  # sequences in one forward pass
MAX_THREADS = 256  # with a hundred thousand torch crashes


@dataclass(frozen=True)
class Latency:
    """The latency of one forward pass of a whole batch, and its uncertainty."""

    ms: float  # per forward pass of the batch, not per sequence: the minimum of all rounds
    spread: float  # (maximum - minimum) / minimum over the rounds, noisy ones excluded
    batch: int
    length: int
    threads: int
    rounds_ms: tuple[float, ...] = ()  # minimum of each round, noisy ones included
    noisy_rounds: int = 0  # how many of them are noisy
    reference_ms: float = 0.0  # the minimum of the reference computation alongside; 0 where nothing was measured


class Meter(ABC):
    """Measures or computes the latency of networks on a task's inputs.

    Args:
        batch: sequences in one forward pass.
        length: of the sequences in tokens; None for the task's full length.
    """

    def __init__(self, *, batch: int, length: int | None) -> None:
        check_whole(1, MAX_BATCH, batch=batch)
        if length is not None:
            check_whole(1, length=length)
        self.batch, self.length = batch, length

    def measure(self, network: nn.Module, task: Task) -> Latency:
        """The latency of one network; its training mode is restored."""
        return self.measure_all([network], [task])[0]

    @abstractmethod
    def measure_all(self, networks: Sequence[nn.Module], tasks: Sequence[Task]) -> list[Latency]:
        """The latencies of several networks, each on its task, under the same conditions, in their order."""


class FlopsLatency(Meter):
    """Not measured: FLOPs at a fixed speed, for tests and for runs that must be reproducible to the last digit.

    Args:
        batch: sequences in one forward pass.
        length: of the sequences in tokens; None for the task's full length.
        gflops_per_s: 10^9 floating-point operations per second.
    """

    def __init__(self, *, batch: int = 1, length: int | None = None, gflops_per_s: float = 10.0) -> None:
        super().__init__(batch=batch, length=length)
        check_above(0.0, gflops_per_s=gflops_per_s)
        self.gflops_per_s = gflops_per_s

    def measure_all(self, networks: Sequence[nn.Module], tasks: Sequence[Task]) -> list[Latency]:
        """The latencies, from :func:`search.costs.counted.flops`."""
        latencies = []
        for network, task in zip(networks, tasks, strict=True):
            ms = flops(network, task.sample(self.batch, self.length), use=task.predict) / self.gflops_per_s / 1e6
            latencies.append(Latency(ms, 0.0, self.batch, self.length or task.spec.length, threads=1))
        return latencies


class Machine:
    """Clocks and a reference computation; all times in seconds."""

    def wall(self) -> float:
        """Wall-clock time."""
        return time.perf_counter()

    def cpu(self) -> float:
        """CPU time of this thread."""
        return time.thread_time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def reference(self) -> None:
        """A fixed computation of about 0.1 ms: if it takes longer, the machine is slower."""
        for _ in range(4):
            _ = _MATRIX @ _MATRIX


_MATRIX = torch.full((96, 96), 1 / 96)


class MeasuredLatency(Meter):
    """Wall-clock time on this machine's CPU.

    Args:
        batch: sequences in one forward pass.
        length: of the sequences in tokens; None for the task's full length.
        threads: that torch uses.
        rounds: of repeats; up to as many again replace noisy ones.
        repeats: maximum of forward passes in a round.
        warmup: maximum of forward passes before the first round.
        seconds: time limit per network over all rounds, except that each round has at least ``MIN_REPEATS`` repeats.
        sleep_s: seconds between two rounds.
        machine: clocks and reference computation; tests pass one whose times are known.
    """

    def __init__(
        self,
        *,
        batch: int = 1,
        length: int | None = None,
        threads: int = 1,
        rounds: int = 3,
        repeats: int = 50,
        warmup: int = 5,
        seconds: float = 0.25,
        sleep_s: float = 0.03,
        machine: Machine | None = None,
    ) -> None:
        super().__init__(batch=batch, length=length)
        check_whole(1, MAX_THREADS, threads=threads)
        check_whole(1, rounds=rounds, repeats=repeats)
        check_whole(0, warmup=warmup)
        check_number(0.0, seconds=seconds, sleep_s=sleep_s)
        self.threads, self.rounds, self.repeats, self.warmup = threads, rounds, repeats, warmup
        self.seconds, self.sleep_s = seconds, sleep_s
        self.machine = machine or Machine()

    def measure_all(self, networks: Sequence[nn.Module], tasks: Sequence[Task]) -> list[Latency]:
        """The latencies, interleaved within each round, so that drift of the machine's speed affects all alike."""
        forwards = [
            partial(task.predict, network, task.sample(self.batch, self.length))
            for network, task in zip(networks, tasks, strict=True)
        ]
        with ExitStack() as stack:
            for network in networks:
                _check_on_cpu(network)
                stack.enter_context(evaluating(network))
            stack.enter_context(measurement_lock())
            stack.enter_context(torch_threads(self.threads))
            stack.enter_context(torch.inference_mode())
            measured = self._measure_rounds(forwards)
        lengths = [self.length or task.spec.length for task in tasks]
        return [self._summary(rounds, self.batch, length) for rounds, length in zip(measured, lengths, strict=True)]

    def _measure_rounds(self, forwards: Sequence[Callable[[], object]]) -> list[list[_Round]]:
        """The rounds of each forward pass: until ``rounds`` are not noisy, at most twice as many."""
        for forward in forwards:
            self._warm_up(forward)
        measured: list[list[_Round]] = [[] for _ in forwards]
        for number in range(2 * self.rounds):
            pending = [i for i, rounds in enumerate(measured) if len(self._quiet(rounds)) < self.rounds]
            if not pending:
                break
            if number:
                self.machine.sleep(self.sleep_s)
            for i, result in zip(pending, self._measure_round([forwards[i] for i in pending]), strict=True):
                measured[i].append(result)
        return measured

    def _warm_up(self, forward: Callable[[], object]) -> None:
        start = self.machine.wall()
        for _ in range(self.warmup):
            forward()
            if self.machine.wall() - start >= self.seconds / self.rounds:
                break

    def _measure_round(self, forwards: Sequence[Callable[[], object]]) -> list[_Round]:
        """Repeat the reference and all forward passes in turn, within the time limit; the minima of each."""
        best = [(float("inf"), float("inf"))] * (1 + len(forwards))
        end = self.machine.wall() + len(forwards) * self.seconds / self.rounds
        for repeat in range(self.repeats):
            if repeat >= MIN_REPEATS and self.machine.wall() >= end:
                break
            for i, run in enumerate((self.machine.reference, *forwards)):
                cpu, wall = self.machine.cpu(), self.machine.wall()
                run()
                wall, cpu = self.machine.wall() - wall, self.machine.cpu() - cpu
                best[i] = (min(best[i][0], wall), min(best[i][1], cpu))
        reference, *others = best
        return [_Round(wall, cpu, reference[0]) for wall, cpu in others]

    def _quiet(self, rounds: Sequence[_Round]) -> list[_Round]:
        """The rounds that are not noisy."""
        limit = (1 + NOISE_TOLERANCE) * min((each.reference for each in rounds), default=0.0)
        return [each for each in rounds if each.reference <= limit and not self._preempted(each)]

    def _summary(self, rounds: Sequence[_Round], batch: int, length: int) -> Latency:
        quiet = self._quiet(rounds)
        times = [self._seconds(each) for each in rounds]
        return Latency(
            ms=1e3 * min(times),
            spread=max(self._seconds(each) for each in quiet or rounds) / min(times) - 1,
            batch=batch,
            length=length,
            threads=self.threads,
            rounds_ms=tuple(1e3 * seconds for seconds in times),
            noisy_rounds=len(rounds) - len(quiet),
            reference_ms=1e3 * min(each.reference for each in rounds),
        )

    def _preempted(self, each: _Round) -> bool:
        """Whether other processes ran in between; unknown with several threads, as CPU time is that of one."""
        return self.threads == 1 and each.wall > each.cpu * (1 + NOISE_TOLERANCE)

    def _seconds(self, each: _Round) -> float:
        """Wall-clock time, or CPU time if preempted: on an idle core the two are equal."""
        return each.cpu if self._preempted(each) else each.wall


class _Round(NamedTuple):
    """Minima over the repeats of a round, in seconds: wall-clock time, CPU time, wall-clock time of the reference."""

    wall: float
    cpu: float
    reference: float


def _check_on_cpu(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.device.type != "cpu":
            raise ValueError(f"a network on {parameter.device}: latency is measured on the CPU")
