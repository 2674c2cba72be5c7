"""Further workers of a run on the same machine: processes that run trials of the same study.

Each is ``python -m search.workers``: see :mod:`search.workers.__main__`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from search.budget.deadline import Deadline

MAX_AUTO = 4  # workers by default, if there are as many cores: each holds PyTorch and a batch in memory
MAX_RESTARTS = 10  # of killed workers of a run: more are killed by something that will not stop
STOPPING_S = 20.0  # that a worker has to requeue its trial, before it is killed


def worker_count(config: Mapping[str, Any]) -> int:
    """``config["workers"]``; if that is ``auto``, one per GPU of the device, on a CPU with a time budget one per core.

    On a CPU without a budget it is one: then the same seed gives the same trials to the bit, which several workers,
    whose order depends on timing, do not; and who sets no budget does not say that time is short.
    """
    workers = config.get("workers", "auto")
    if isinstance(workers, int):
        return workers
    if gpus := _gpus(config["device"]):
        return gpus
    if config["budget"] is None or config["device"] not in ("auto", "cpu"):
        return 1
    from search.costs.exclusive import cores
    from search.training.device import select_device

    return min(cores(), MAX_AUTO) if select_device(config["device"]).accelerator == "cpu" else 1


def worker_devices(device: str, count: int) -> list[str]:
    """The device of each of ``count`` workers; several GPUs are dealt out in turn."""
    gpus = _gpus(device)
    return [f"cuda:{number % gpus}" for number in range(count)] if gpus > 1 else [device] * count


def _gpus(device: str) -> int:
    """How many GPUs of CUDA ``device`` leaves to choose from."""
    if device not in ("auto", "cuda"):
        return 0
    from torch import cuda

    return cuda.device_count() if cuda.is_available() else 0


def _environment() -> dict[str, str]:
    """What a worker prints is shown in the terminal of this process, if it has one.

    The load of the machine is logged by this process alone.
    """
    inherited = {**os.environ, "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}
    if not sys.stdout.isatty():
        return inherited
    return {**inherited, "FORCE_COLOR": "1", "COLUMNS": str(shutil.get_terminal_size().columns)}


class _Worker(NamedTuple):
    process: subprocess.Popen[str]
    errors: IO[str]  # its standard error
    forwarding: threading.Thread  # shows its standard output


class WorkerProcesses:
    """A context manager that starts workers, prints what they print, and stops them.

    Args:
        config: the composed configuration, with the scale and the study chosen.
        devices: of the workers that are started.
        deadline: of the run.
        show: prints a line.
    """

    def __init__(
        self, config: Mapping[str, Any], devices: Sequence[str], deadline: Deadline, show: Callable[[str], None]
    ) -> None:
        self._config, self._devices, self._deadline, self._show = config, devices, deadline, show
        self._workers: list[_Worker] = []
        self._replaced = set[int]()  # the process ids of killed workers
        self._lock, self._stopping = threading.Lock(), False

    def __enter__(self) -> Self:
        for device in self._devices:
            self._start(device)
        return self

    def _start(self, device: str) -> None:
        ends_at = time.time() + self._deadline.total_left_s() if self._deadline.limited else None
        given = {"config": {**self._config, "device": device}, "ends_at": ends_at}
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when all have ended
        process = subprocess.Popen(
            [sys.executable, "-m", "search.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then closes their input
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; finish() tells why
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.flush()
        thread = threading.Thread(target=self._forward, args=(process, device), daemon=True)
        self._workers.append(_Worker(process, errors, thread))
        thread.start()

    def _forward(self, process: subprocess.Popen[str], device: str) -> None:
        """Show what a worker prints; start another in its place if it is killed."""
        assert process.stdout is not None
        for line in process.stdout:
            self._show(line.rstrip("\n"))
        code = process.wait()
        with self._lock:
            if code >= 0 or self._stopping or len(self._replaced) == MAX_RESTARTS:
                return
            self._replaced.add(process.pid)
            self._start(device)
        name = signal.Signals(-code).name
        cause = ", as the kernel does when memory runs out" if code == -signal.SIGKILL else ""
        self._show(f"A worker was killed ({name}{cause}); another takes its place.")

    def finish(self) -> None:
        """Wait until all have ended or the time budget is used up; what went wrong in one is shown.

        Those that have not ended, such as one that is still starting on a busy machine, are stopped on leaving the
        context.
        """
        for process, errors, forwarding in self._workers:  # which grows while killed workers are replaced
            left_s = max(0.0, self._deadline.total_left_s()) if self._deadline.limited else None
            try:
                code = process.wait(left_s)
            except subprocess.TimeoutExpired:
                self._show("A worker is stopped, as the time budget is used up; the same command continues its trial.")
                continue
            forwarding.join()
            if code and process.pid not in self._replaced:
                errors.seek(0)
                last = (errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
                self._show(f"a worker has failed: {last}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._stopping = True
        for process, *_ in self._workers:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process, errors, forwarding in self._workers:
            try:
                process.wait(STOPPING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            forwarding.join()
            assert process.stdout is not None
            process.stdout.close()
            errors.close()
