"""What measures or computes latencies, and what it returns."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
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


class Meter(ABC):
    """Measures or computes the latency of networks on a task's inputs.

    Args:
        batch: sequences in one forward pass.
        length: of the sequences in tokens; None for the task's full length.

    Attributes:
        mode: what is timed, see :mod:`search.costs.modes`.
        threads: that a forward pass uses.
        runtimes: in which each network is measured, see :mod:`search.costs.runtimes`; the fastest one counts.
        host: name of the machine that is measured.
    """

    mode: str
    threads: int
    runtimes: Sequence[str]
    host: str

    def __init__(self, *, batch: int, length: int | None) -> None:
        check_whole(1, MAX_BATCH, batch=batch)
        if length is not None:
            check_whole(1, length=length)
        self.batch, self.length = batch, length
        self.mode, self.threads, self.runtimes, self.host = "forward", 1, (EAGER,), platform.node()

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
