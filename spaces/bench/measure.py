"""Seconds and peak memory of a forward pass and of a forward and backward pass.

On a CPU, seconds are process CPU time, summed over threads, to which other processes do not add; on a GPU, the time
between two CUDA events. All implementations at one length are timed in interleaved rounds in one process, so that a
slowdown of the machine affects all alike.

Peak memory is what one forward and backward pass adds: on a CPU to the resident set of a child process that has created
the module and its input; on a GPU to the memory allocated by PyTorch.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from spaces.attention import Shape
from spaces.bench.implementations import IMPLEMENTATIONS, Implementation

PASSES = ("forward", "forward+backward")
LEAST_SAMPLE_S = 0.1


@dataclass(frozen=True)
class BenchConfig:
    """The settings of a benchmark."""

    batch: int
    width: int
    heads: int
    dtype: torch.dtype
    device: str
    threads: int


@dataclass
class Measurement:
    """Of one implementation at one length: the seconds of each pass, one per round, and the peak memory in bytes."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PASSES})
    peak_bytes: int | None = None


class Subject:
    """A module and its input; the forward pass runs in eval mode, forward and backward in train mode."""

    def __init__(self, implementation: Implementation, config: BenchConfig, length: int) -> None:
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):  # performer-pytorch prints that it lacks a CUDA extension
            module = implementation.create(Shape(config.width, config.heads, length, implementation.causal))
        self.module = module.to(config.device, config.dtype)
        self.x = torch.randn(config.batch, length, config.width, device=config.device, dtype=config.dtype)
        self._weights = torch.randn_like(self.x)
        self._leaves = [self.x.requires_grad_(), *(p for p in module.parameters() if p.requires_grad)]

    def passes(self) -> dict[str, Callable[[], object]]:
        """The passes that are measured, by name."""
        return dict(zip(PASSES, (self.forward, self.forward_backward), strict=True))

    def forward(self) -> torch.Tensor:
        """A forward pass without gradients."""
        self.module.eval()
        with torch.no_grad():
            y: torch.Tensor = self.module(self.x)
        return y

    def forward_backward(self) -> tuple[torch.Tensor, ...]:
        """The gradients with respect to the input and all parameters."""
        self.module.train()
        return torch.autograd.grad(self.module(self.x), self._leaves, self._weights, allow_unused=True)


def seconds_per_call(call: Callable[[], object], calls: int, device: str) -> float:
    """The mean over ``calls`` consecutive calls."""
    if device == "cpu":
        start = time.process_time()
        for _ in range(calls):
            call()
        return (time.process_time() - start) / calls
    start_event, end_event = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start_event.record()
    for _ in range(calls):
        call()
    end_event.record()
    end_event.synchronize()
    return start_event.elapsed_time(end_event) / 1000 / calls


def measure_in_rounds(
    subjects: Mapping[str, Subject], rounds: int, device: str, progress: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each pass of each subject, one per round, after a warm-up that sets the number of calls per sample."""
    calls: dict[tuple[str, str], int] = {}
    seconds: dict[str, dict[str, list[float]]] = {name: {each: [] for each in PASSES} for name in subjects}
    for number in range(rounds + 1):
        for name, subject in subjects.items():
            progress(f"round {number}/{rounds}  {name}" if number else f"warming up  {name}")
            for each, call in subject.passes().items():
                if number:
                    seconds[name][each].append(seconds_per_call(call, calls[name, each], device))
                    continue
                call()
                calls[name, each] = calls_per_sample(seconds_per_call(call, 1, device))
    return seconds


def calls_per_sample(seconds: float) -> int:
    """How many calls of ``seconds`` make a sample long enough to be measured."""
    return max(1, round(LEAST_SAMPLE_S / max(seconds, 1e-6) + 0.5))


def probe(implementation: Implementation, config: BenchConfig, length: int, limit_s: float) -> tuple[float, int] | str:
    """The seconds and peak bytes of one forward and backward pass, or why it cannot be measured.

    Args:
        limit_s: on a CPU, a pass that takes more than about ten times as long is aborted.
    """
    if config.device != "cpu":
        return _probe_on_gpu(implementation, config, length)
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_probe_in_child, args=(sender, implementation.name, config, length), daemon=True)
    child.start()
    sender.close()
    try:
        timeout_s = 10 * limit_s + 60  # the first child also imports everything
        if not receiver.poll(timeout_s):
            return f"it took more than {timeout_s:.0f} s"
        answer: tuple[float, int] | str = receiver.recv()
        return answer
    except EOFError:
        return "its process was killed, possibly out of memory"
    finally:
        child.kill()
        child.join()
        receiver.close()


def preload(implementations: Sequence[Implementation]) -> None:
    """Let the fork server of :func:`probe` import everything before it forks."""
    packages = [each.package for each in implementations if each.package]
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [__name__, "spaces.bench.packages", *dict.fromkeys(packages)]
    )


def _probe_in_child(sender: Connection, name: str, config: BenchConfig, length: int) -> None:
    """In the child process: send what :func:`probe` returns."""
    torch.set_num_threads(config.threads)
    (implementation,) = (each for each in IMPLEMENTATIONS if each.name == name)
    try:
        _limit_memory()
        with contextlib.suppress(Exception):  # one-time initialisation; some fail on short sequences
            Subject(implementation, replace(config, batch=1), min(16, length)).forward_backward()
        subject = Subject(implementation, config, length)
        before = _peak_bytes(reset=True)
        start = time.process_time()
        subject.forward_backward()
        sender.send((time.process_time() - start, _peak_bytes() - before))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:150]}")


def _limit_memory() -> None:
    """Limit the address space to the memory that is free now, so that allocations fail before the OOM killer acts."""
    memory = Path("/proc/meminfo")
    if not memory.exists():
        return
    (free,) = (int(line.split()[1]) * 1024 for line in memory.read_text().splitlines() if "MemAvailable" in line)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + free * 9 // 10,) * 2)


def _peak_bytes(*, reset: bool = False) -> int:
    """The peak resident set size; with ``reset``, and where the system supports it, counted from now on."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _probe_on_gpu(implementation: Implementation, config: BenchConfig, length: int) -> tuple[float, int] | str:
    try:
        subject = Subject(implementation, config, length)
        subject.forward_backward()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = seconds_per_call(subject.forward_backward, 1, config.device)
        return seconds, torch.cuda.max_memory_allocated() - before
    except (RuntimeError, ValueError, AssertionError) as error:
        torch.cuda.empty_cache()
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:150]}"
