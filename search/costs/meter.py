"""What measures or computes latencies, and what it returns."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from search.costs.runtimes import EAGER
from spaces.dimensions import check_whole
from spaces.tasks import Task

MAX_BATCH = 4096  # sequences in one forward pass


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


class TimeShare:
    """The share of a run's time that measuring may take.

    Args:
        share: 0 to 1; with 1 there is no limit.
        elapsed_s: returns the seconds since the run began.
    """

    def __init__(self, share: float, elapsed_s: Callable[[], float]) -> None:
        self.share, self.elapsed_s = share, elapsed_s
        self._spent_s = self._began_s = 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Counts the time within the context."""
        self._began_s = self.elapsed_s()
        try:
            yield
        finally:
            self._spent_s += self.elapsed_s() - self._began_s

    def is_used_up(self, further_s: float) -> bool:
        """Whether ``further_s`` more seconds of the measurement in progress would exceed it."""
        end_s = self.elapsed_s() + further_s
        return self.share < 1 and self._spent_s + end_s - self._began_s > self.share * end_s


class Meter(ABC):
    """Measures or computes the latency of networks on a task's inputs.

    Args:
        batch: sequences in one forward pass.
        length: of the sequences in tokens; None for the task's full length.

    Attributes:
        mode: what is timed, see :mod:`search.costs.modes`.
        threads: that a forward pass uses.
        runtimes: in which each network is measured, see :mod:`search.costs.runtimes`; the fastest one counts.
        device: of PyTorch, that is timed.
        host: name of the machine that is measured.
        time_share: that limits further rounds; without a limit unless a run sets one.
    """

    mode: str
    threads: int
    runtimes: Sequence[str]
    device: str
    host: str
    time_share: TimeShare

    def __init__(self, *, batch: int, length: int | None) -> None:
        check_whole(1, MAX_BATCH, batch=batch)
        if length is not None:
            check_whole(1, length=length)
        self.batch, self.length = batch, length
        self.mode, self.threads, self.runtimes, self.host = "forward", 1, (EAGER,), platform.node()
        self.device = "cpu"
        self.time_share = TimeShare(1.0, lambda: 0.0)

    @property
    def hardware(self) -> str | None:
        """What latencies depend on besides the network; None if they are computed."""
        return None

    def measure(self, network: nn.Module, task: Task) -> Latency:
        """The latency of one network; its training mode is restored."""
        return self.measure_all([network], [task])[0]

    @abstractmethod
    def measure_all(self, networks: Sequence[nn.Module], tasks: Sequence[Task]) -> list[Latency]:
        """The latencies of several networks, each on its task, under the same conditions, in their order."""
