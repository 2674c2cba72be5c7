"""The clocks of a machine, and a reference computation that tells when it is slower than usual."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import quantiles
from typing import NamedTuple

import torch

REFERENCE_RUNS = 8  # of which the fastest counts
REMEMBERED = 200  # times of the reference computation


class Machine:
    """Clocks and a reference computation; all times in seconds.

    Attributes:
        device: of PyTorch, that is timed.
    """

    device = "cpu"

    def __init__(self) -> None:
        self._references: deque[float] = deque(maxlen=REMEMBERED)

    def wall(self) -> float:
        """Wall-clock time."""
        return time.perf_counter()

    def cpu(self) -> float:
        """CPU time of this thread."""
        return time.thread_time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def prepared(self, use: Callable[[], object]) -> Callable[[], object]:
        """What is called in place of ``use`` to be timed."""
        return use

    def timed(self, use: Callable[[], object]) -> tuple[float, float]:
        """The wall-clock and CPU time of one call of what :meth:`prepared` has returned."""
        cpu_start, start = self.cpu(), self.wall()
        use()
        return self.wall() - start, self.cpu() - cpu_start

    def compute(self) -> None:
        """A fixed computation of about 0.1 ms."""
        for _ in range(4):
            _ = _MATRIX @ _MATRIX

    def reference(self) -> float:
        """The CPU time of the fixed computation, the minimum of a few runs, which is remembered."""
        best = float("inf")
        for _ in range(REFERENCE_RUNS):
            start = self.cpu()
            self.compute()
            best = min(best, self.cpu() - start)
        self._references.append(best)
        return best

    def usual_reference(self) -> float:
        """What :meth:`reference` is when nothing slows the machine: the first decile of the latest ones."""
        seen = self._references
        return quantiles(seen, n=10, method="inclusive")[0] if len(seen) > 1 else seen[0]


_MATRIX = torch.full((96, 96), 1 / 96)


class Round(NamedTuple):
    """Minima over the repeats of a round, and the reference, the slower one of before and after it; in seconds."""

    wall: float
    cpu: float
    reference: float
