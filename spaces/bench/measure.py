"""Seconds and bytes of a forward pass and of a forward and backward pass.

Seconds are of the processor, all threads together, which another process on the machine does not add to; on a GPU they
are the time between two events. Everything of one length is timed in turns in one process, round by round, so that a
machine that grows slower grows slower for all.

Bytes are the peak of what one forward and backward pass adds: on a CPU the resident memory of a child process in which
nothing else happens, beyond what it had when module and input stood there; on a GPU what PyTorch has allocated.
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

from spaces.bench.implementations import IMPLEMENTATIONS, Implementation, Size

PASSES = ("forward", "forward+backward")
LEAST_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Setting:
    """What all are measured with."""

    batch: int
    width: int
    heads: int
    dtype: torch.dtype
    device: str
    threads: int


@dataclass
class Measured:
    """Of one implementation at one length: seconds of each pass, one a round, and the bytes."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PASSES})
    peak_bytes: int | None = None


class Subject:
    """A module and its input; forward as in evaluation, forward and backward as in training."""

    def __init__(self, implementation: Implementation, setting: Setting, length: int) -> None:
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):  # performer-pytorch tells of a CUDA extension it lacks
            module = implementation.create(Size(length, setting.width, setting.heads))
        self.module = module.to(setting.device, setting.dtype)
        self.x = torch.randn(setting.batch, length, setting.width, device=setting.device, dtype=setting.dtype)
        self._weights = torch.randn_like(self.x)
        self._leaves = [self.x.requires_grad_(), *(p for p in module.parameters() if p.requires_grad)]

    def passes(self) -> dict[str, Callable[[], object]]:
        """What is measured, by name."""
        return dict(zip(PASSES, (self.forward, self.forward_backward), strict=True))

    def forward(self) -> torch.Tensor:
        """Without gradients."""
        self.module.eval()
        with torch.no_grad():
            y: torch.Tensor = self.module(self.x)
        return y

    def forward_backward(self) -> tuple[torch.Tensor, ...]:
        """To the input and to all parameters."""
        self.module.train()
        return torch.autograd.grad(self.module(self.x), self._leaves, self._weights, allow_unused=True)


def seconds_a_call(call: Callable[[], object], calls: int, device: str) -> float:
    """The mean over ``calls`` of them in a row."""
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


def in_rounds(
    subjects: Mapping[str, Subject], rounds: int, device: str, progress: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each pass of each subject, one a round, after a warm-up that says how many calls make a sample."""
    calls: dict[tuple[str, str], int] = {}
    seconds: dict[str, dict[str, list[float]]] = {name: {each: [] for each in PASSES} for name in subjects}
    for number in range(rounds + 1):
        for name, subject in subjects.items():
            progress(f"round {number}/{rounds}  {name}" if number else f"warming up  {name}")
            for each, call in subject.passes().items():
                if number:
                    seconds[name][each].append(seconds_a_call(call, calls[name, each], device))
                    continue
                call()
                calls[name, each] = calls_of_a_sample(seconds_a_call(call, 1, device))
    return seconds


def calls_of_a_sample(seconds: float) -> int:
    """How many calls last long enough together to be measured."""
    return max(1, round(LEAST_SAMPLE_S / max(seconds, 1e-6) + 0.5))


def probe(implementation: Implementation, setting: Setting, length: int, limit_s: float) -> tuple[float, int] | str:
    """The seconds of one forward and backward pass, and the bytes; or why it cannot be measured.

    Args:
        limit_s: on a CPU, a pass that takes many times as long is broken off.
    """
    if setting.device != "cpu":
        return _probed_on_gpu(implementation, setting, length)
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, implementation.name, setting, length), daemon=True)
    child.start()
    sender.close()
    try:
        patience = 10 * limit_s + 60  # the first child waits for imports
        if not receiver.poll(patience):
            return f"it took more than {patience:.0f} s"
        answer: tuple[float, int] | str = receiver.recv()
        return answer
    except EOFError:
        return "its process was ended, perhaps for want of memory"
    finally:
        child.kill()
        child.join()
        receiver.close()


def prepare(chosen: Sequence[Implementation]) -> None:
    """Let the children that :func:`probe` starts begin with everything imported."""
    packages = [each.package for each in chosen if each.package]
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [__name__, "spaces.bench.packages", *dict.fromkeys(packages)]
    )


def _answer(sender: Connection, name: str, setting: Setting, length: int) -> None:
    """In a child: send what :func:`probe` returns."""
    torch.set_num_threads(setting.threads)
    (implementation,) = (each for each in IMPLEMENTATIONS if each.name == name)
    try:
        _limit_memory()
        with contextlib.suppress(Exception):  # what is set up once stands then; not all can be as short as this
            Subject(implementation, replace(setting, batch=1), min(16, length)).forward_backward()
        subject = Subject(implementation, setting, length)
        before = _peak_bytes(anew=True)
        start = time.process_time()
        subject.forward_backward()
        sender.send((time.process_time() - start, _peak_bytes() - before))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:150]}")


def _limit_memory() -> None:
    """Let allocations fail beyond what is free now, rather than have the system choose a process to end."""
    memory = Path("/proc/meminfo")
    if not memory.exists():
        return
    (free,) = (int(line.split()[1]) * 1024 for line in memory.read_text().splitlines() if "MemAvailable" in line)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + free * 9 // 10,) * 2)


def _peak_bytes(*, anew: bool = False) -> int:
    """The most memory that was ever resident, or that is now, if the system lets the count begin ``anew``."""
    if anew:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _probed_on_gpu(implementation: Implementation, setting: Setting, length: int) -> tuple[float, int] | str:
    try:
        subject = Subject(implementation, setting, length)
        subject.forward_backward()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = seconds_a_call(subject.forward_backward, 1, setting.device)
        return seconds, torch.cuda.max_memory_allocated() - before
    except (RuntimeError, ValueError, AssertionError) as error:
        torch.cuda.empty_cache()
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:150]}"
