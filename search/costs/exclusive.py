"""Undisturbed latency measurements: a lock per host, a fixed number of threads, and priorities of threads."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

try:
    import fcntl
except ImportError:  # on Windows there is no lock
    fcntl = None  # type: ignore[assignment]


def lower_thread_priority() -> None:
    """Give the calling thread, and threads that it starts later, the lowest priority.

    A training thread that calls it leaves nearly all of the core's time to a latency measurement. Only Linux has
    priorities per thread; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


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
    # O_NOFOLLOW: in a world-writable folder the name could be another user's link to a file of this user.
    file = os.open(lock_path(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


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
