"""Latencies on a GPU: as Python code that calls the network sees them, or of the kernels alone.

From the call until the GPU is done, launching kernels from Python is part of the time, for small networks most of it.
In a CUDA graph all kernels are launched at once; it is timed by events of the GPU, and the cache is overwritten before
each repeat, so that weights are read from memory as in a service that does other work between two calls.

A GPU that is throttled runs the reference computation more slowly, and the round is noisy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from search.costs.clock import Machine
from search.costs.runtimes import NoRuntimeError

CPU = "cpu"
CAPTURE_WARMUP = 3  # calls before a capture, in which libraries choose their kernels and reserve memory
CACHES = 2  # times the size of the GPU's second-level cache is overwritten


class Gpu(Machine):
    """The clocks of a GPU, and a reference computation there.

    Args:
        device: of PyTorch, such as ``cuda:1``.
        graph: whether uses are captured as CUDA graphs.
    """

    def __init__(self, device: str, *, graph: bool = False) -> None:
        super().__init__()
        self.device, self.graph = device, graph
        self._matrix = torch.full((1024, 1024), 1 / 1024, device=device)
        cache = torch.cuda.get_device_properties(device).L2_cache_size if graph else 0
        self._overwritten = torch.empty(CACHES * cache, dtype=torch.uint8, device=device)

    def wall(self) -> float:
        """Wall-clock time when the GPU has done all that it was given."""
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def cpu(self) -> float:
        """The same: the CPU only waits."""
        return self.wall()

    def compute(self) -> None:
        """A fixed computation of about 0.1 ms."""
        for _ in range(4):
            _ = self._matrix @ self._matrix

    def prepared(self, use: Callable[[], object]) -> Callable[[], object]:
        """See :class:`~search.costs.clock.Machine`; captures a CUDA graph if they are asked for.

        Raises:
            NoRuntimeError: it cannot be captured, as when a step depends on values that the GPU has computed.
        """
        if not self.graph:
            return use
        try:
            stream = torch.cuda.Stream(self.device)
            with torch.cuda.stream(stream):
                for _ in range(CAPTURE_WARMUP):
                    use()
            torch.cuda.synchronize(self.device)
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.device(self.device), torch.cuda.graph(captured):
                use()
        except RuntimeError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise NoRuntimeError(f"it cannot be captured as a CUDA graph: {reason}") from error
        return captured.replay

    def timed(self, use: Callable[[], object]) -> tuple[float, float]:
        """See :class:`~search.costs.clock.Machine`; of a CUDA graph both are the GPU's own time."""
        if not self.graph:
            return super().timed(use)
        with torch.cuda.device(self.device):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self._overwritten.zero_()
            start.record()
            use()
            end.record()
            end.synchronize()
            seconds = start.elapsed_time(end) / 1e3
        return seconds, seconds


def machine_of(device: str, *, graph: bool) -> Machine:
    """The clocks of a device: ``cpu``, ``cuda`` or one of several GPUs such as ``cuda:1``.

    Raises:
        ValueError: there is no such device, or it has no CUDA graphs.
    """
    kind, _, number = device.partition(":")
    if device != CPU and (kind != "cuda" or not (number.isdigit() or device == kind)):
        raise ValueError(f"device={device!r}: it must be cpu, cuda, or one of several GPUs such as cuda:1")
    if problem := missing_gpu(device):
        raise ValueError(f"device={device!r}: {problem}; device=cpu times on the CPU")
    if device == CPU and graph:
        raise ValueError("graph=true: only a GPU has CUDA graphs; device must be cuda")
    return Machine() if device == CPU else Gpu(device, graph=graph)


def missing_gpu(device: str) -> str:
    """Why PyTorch cannot use a device whose kind is ``cuda``, as a clause; empty if it can, or for another kind."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return ""
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    count = torch.cuda.device_count()
    if number and int(number) >= count:
        return f"there is no such GPU; there are {', '.join(f'cuda:{each}' for each in range(count))}"
    return ""


@contextmanager
def on_device(network: nn.Module, device: str) -> Iterator[None]:
    """Move a network to a device, and back to the CPU at the end.

    Raises:
        ValueError: it is not on the CPU.
    """
    for parameter in network.parameters():
        if parameter.device.type != CPU:
            raise ValueError(f"a network on {parameter.device}: it must be on the CPU until it is measured")
    if device == CPU:
        yield
        return
    network.to(device)
    try:
        yield
    finally:
        network.to(CPU)
