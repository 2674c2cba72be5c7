"""Latency: milliseconds of one forward pass, measured robustly, or computed from FLOPs for reproducible runs.

Interference by other processes only ever adds time, so the minimum over many short repeats estimates the latency on an
idle machine. Repeats are grouped in rounds some time apart, because one disturbance outlasts many repeats; of networks
measured together each has its repeats of the first round, then of the second, and so on. One measurement runs at a time
on a host, with the highest priority that the user may have, while trainings wait between two batches (all in
:mod:`search.costs.exclusive`).

A round is noisy if a reference computation before or after it is slower than usual, or if the thread was preempted:
more wall-clock time passed than CPU time. The wall-clock time of a preempted round is not used. Further rounds replace
noisy ones, and follow until the two fastest agree, at growing intervals, as the neighbours on a shared machine may slow
it down for seconds. Where measuring has taken its share of a run's time, there are no further rounds, and networks that
are slower than all rounds should take have a single one. Freed memory is kept, see :mod:`search.costs.allocator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from search.costs.allocator import keep_freed_memory
from search.costs.clock import Machine, Round
from search.costs.counted import evaluating, flops
from search.costs.exclusive import highest_thread_priority, measurement_lock, torch_threads
from search.costs.gpu import CPU, machine_of, on_device
from search.costs.hardware import hardware_name
from search.costs.meter import Latency, Meter
from search.costs.modes import MODES
from search.costs.runtimes import EAGER, RUNTIMES
from spaces.dimensions import check_above, check_number, check_whole
from spaces.schema import listed
from spaces.tasks import Batch, Task

PREEMPTED = 0.1  # a round that took longer than its CPU time by more than this ratio was preempted
AGREEMENT = 0.05  # of the two fastest rounds, or there are further ones
SLOWER = 0.15  # than usual by more than this ratio: the machine is slowed down
LONGEST_PAUSE_S = 1.0  # between two rounds
MIN_REPEATS = 1  # in a round, however slow the network
MAX_THREADS = 256  # with a hundred thousand torch crashes


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


class MeasuredLatency(Meter):
    """Wall-clock time on this machine's CPU or GPU.

    Args:
        batch: sequences in one forward pass.
        length: of the sequences in tokens; None for the task's full length.
        mode: what is timed, see :mod:`search.costs.modes`.
        threads: that the run-time uses.
        device: that is timed, whatever trains: ``cpu``, ``cuda`` or one of several GPUs such as ``cuda:1``.
        graph: on a GPU, whether a CUDA graph is timed, see :mod:`search.costs.gpu`.
        runtimes: of :mod:`search.costs.runtimes`, in each of which a network is measured; the fastest one counts.
        rounds: of repeats at least, noisy ones not counted.
        repeats: maximum of forward passes in a round.
        warmup: maximum of forward passes before the first round.
        seconds: time limit per network over all rounds, except that each round has at least ``MIN_REPEATS`` repeats.
        sleep_s: seconds between two rounds; doubled before each round that replaces noisy ones.
        wait_s: seconds at most, for each network, of further rounds and the pauses before them.
        machine: clocks and reference computation in place of those of ``device``, for tests.
    """

    def __init__(
        self,
        *,
        batch: int = 1,
        length: int | None = None,
        mode: str = "forward",
        threads: int = 1,
        device: str = CPU,
        graph: bool = False,
        runtimes: Sequence[str] = (EAGER,),
        rounds: int = 3,
        repeats: int = 50,
        warmup: int = 5,
        seconds: float = 0.06,
        sleep_s: float = 0.01,
        wait_s: float = 2.0,
        machine: Machine | None = None,
    ) -> None:
        super().__init__(batch=batch, length=length)
        check_whole(1, MAX_THREADS, threads=threads)
        check_whole(1, rounds=rounds, repeats=repeats)
        check_whole(0, warmup=warmup)
        check_number(0.0, seconds=seconds, sleep_s=sleep_s, wait_s=wait_s)
        if not runtimes or not set(runtimes) <= set(RUNTIMES):
            raise ValueError(f"runtimes={list(runtimes)}: it must be a list of one or more of {', '.join(RUNTIMES)}")
        if mode not in MODES:
            raise ValueError(f"mode={mode!r}: it must be {listed(list(MODES))}")
        if mode != "forward" and list(runtimes) != [EAGER]:
            raise ValueError(f"mode={mode}: only the run-time {EAGER} can; runtimes must be [{EAGER}]")
        if device != CPU and list(runtimes) != [EAGER]:
            raise ValueError(
                f"device={device}: only the run-time {EAGER} is timed on a GPU; runtimes must be [{EAGER}]"
            )
        if graph and mode == "train_step":
            raise ValueError("graph=true: a step of training is not captured; mode must be forward, prefill or decode")
        self.mode, self.threads, self.runtimes = mode, threads, tuple(dict.fromkeys(runtimes))
        self.rounds, self.repeats, self.warmup = rounds, repeats, warmup
        self.seconds, self.sleep_s, self.wait_s = seconds, sleep_s, wait_s
        self.machine = machine or machine_of(device, graph=graph)
        self.device = self.machine.device

    @property
    def hardware(self) -> str:
        """See :func:`search.costs.hardware.hardware_name`."""
        return hardware_name(self.device)

    def measure_all(self, networks: Sequence[nn.Module], tasks: Sequence[Task]) -> list[Latency]:
        """The latencies; rounds of the networks alternate, so that drift of the machine's speed affects all alike."""
        keep_freed_memory()
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(evaluating(network))
                stack.enter_context(on_device(network, self.device))
            stack.enter_context(self.time_share.measuring())
            stack.enter_context(measurement_lock())
            stack.enter_context(highest_thread_priority())
            stack.enter_context(torch_threads(self.threads))
            uses = [
                MODES[self.mode](network, task, self._sample(task))
                for network, task in zip(networks, tasks, strict=True)
            ]
            measured = self._measure_rounds(uses)
        lengths = [self.length or task.spec.length for task in tasks]
        return [self._summary(rounds, self.batch, length) for rounds, length in zip(measured, lengths, strict=True)]

    def _sample(self, task: Task) -> Batch:
        batch = task.sample(self.batch, self.length)
        moved: Batch = tree_map_only(Tensor, lambda tensor: tensor.to(self.device), batch)
        return moved

    def _measure_rounds(self, uses: Sequence[Callable[[], object]]) -> list[list[Round]]:
        """The rounds of each use: until they suffice, or the time for further ones is used up."""
        uses = [self.machine.prepared(use) for use in uses]
        for use in uses:
            self._warm_up(use)
        measured: list[list[Round]] = [[] for _ in uses]
        pending, pause, left = list(range(len(uses))), self.sleep_s, self.wait_s
        while pending:
            start = self.machine.wall()
            for i in pending:
                measured[i].append(self._measure_round(uses[i]))
            round_s = (self.machine.wall() - start) / len(pending)
            pending = [i for i, rounds in enumerate(measured) if not self._suffice(rounds)]
            is_further = max(map(len, measured)) >= self.rounds  # the next round replaces noisy ones
            if is_further:
                pause = min(max(2 * pause, self.sleep_s), LONGEST_PAUSE_S)
                left -= pause + round_s
                if left < 0:
                    break
            is_slow = is_further or round_s > self.seconds
            if is_slow and self.time_share.is_used_up(pause + round_s * len(pending)):
                break
            if pending:
                self.machine.sleep(pause)
        return measured

    def _warm_up(self, forward: Callable[[], object]) -> None:
        start = self.machine.wall()
        for _ in range(self.warmup):
            forward()
            if self.machine.wall() - start >= self.seconds / self.rounds:
                break

    def _measure_round(self, use: Callable[[], object]) -> Round:
        """Repeat a use within the time limit, between two reference computations."""
        machine = self.machine
        reference, wall, cpu = machine.reference(), float("inf"), float("inf")
        end = machine.wall() + self.seconds / self.rounds
        for repeat in range(self.repeats):
            if repeat >= MIN_REPEATS and machine.wall() >= end:
                break
            wall, cpu = map(min, (wall, cpu), machine.timed(use))
        return Round(wall, cpu, max(reference, machine.reference()))

    def _suffice(self, rounds: Sequence[Round]) -> bool:
        """Whether enough rounds are not noisy, and the two fastest of these agree."""
        fastest = sorted(map(self._seconds, self._quiet(rounds)))
        return len(fastest) >= self.rounds and fastest[min(1, len(fastest) - 1)] <= (1 + AGREEMENT) * fastest[0]

    def _quiet(self, rounds: Sequence[Round]) -> list[Round]:
        """The rounds that are not noisy."""
        limit = (1 + SLOWER) * self.machine.usual_reference()
        return [each for each in rounds if each.reference <= limit and not self._preempted(each)]

    def _summary(self, rounds: Sequence[Round], batch: int, length: int) -> Latency:
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

    def _preempted(self, each: Round) -> bool:
        """Whether other processes ran in between; unknown with several threads, as CPU time is that of one."""
        return self.threads == 1 and each.wall > each.cpu * (1 + PREEMPTED)

    def _seconds(self, each: Round) -> float:
        """Wall-clock time, or CPU time if preempted: on an idle core the two are equal."""
        return each.cpu if self._preempted(each) else each.wall
