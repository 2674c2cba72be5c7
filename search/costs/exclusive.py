"""Undisturbed latency measurements: a lock per host for which trainings wait, a number of threads, and a priority."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch

MAX_WAIT_S = 5.0  # of a training for one measurement: longer than it takes, unless its process was stopped

try:
    import fcntl
except ImportError:  # on Windows there is no lock
    fcntl = None  # type: ignore[assignment]
else:
    # O_NOFOLLOW: in a world-writable folder the name could be another user's link to a file of this user.
    LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


@contextmanager
def highest_thread_priority() -> Iterator[None]:
    """Give the calling thread the highest priority, and restore it; on Linux, where the user may, as root may."""
    thread = threading.get_native_id()
    try:
        if sys.platform != "linux":
            raise PermissionError
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, -20)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, before)


def lock_path() -> Path:
    """The lock file of measurements on this host, one per user."""
    user = os.getuid() if hasattr(os, "getuid") else "all"
    return Path(tempfile.gettempdir()) / f"paretoformer-latency-{user}.lock"


@contextmanager
def measurement_lock() -> Iterator[None]:
    """An exclusive lock among all threads and processes of this user on this host; blocks until it is free.

    The operating system releases the lock of a process that ends.
    """
    if fcntl is None:
        yield
        return
    file = os.open(lock_path(), LOCK_FLAGS, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


class WaitWhileMeasuring:
    """Makes a training wait between two batches while another process of this user measures on this host.

    It waits ``MAX_WAIT_S`` at most for one measurement. Trainings keep their priority: with a lower one, they would
    hardly proceed on a machine that has other work.
    """

    def __init__(self) -> None:
        self._file: int | None = None if fcntl is None else os.open(lock_path(), LOCK_FLAGS, 0o600)
        self._waited_enough = False  # for the measurement in progress

    def __call__(self) -> None:
        """Wait, if there is a measurement."""
        end = time.monotonic() + MAX_WAIT_S
        while self._is_locked():
            if self._waited_enough or time.monotonic() >= end:
                self._waited_enough = True
                return
            time.sleep(0.001)
        self._waited_enough = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _is_locked(self) -> bool:
        if self._file is None:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads, for the whole process, and restore it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
