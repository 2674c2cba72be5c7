"""A machine quiet enough to measure on: one measurement at a time, few threads, and training that makes way."""

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
except ImportError:  # not on Windows: there, nothing keeps two measurements apart
    fcntl = None  # type: ignore[assignment]


def lower_thread_priority() -> None:
    """Give the calling thread the lowest priority, for good; threads that it starts inherit it.

    A training that does so leaves a measurement on the same core nearly all of its time. Only Linux has priorities per
    thread; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def lock_path() -> Path:
    """The file that whoever measures on this host holds locked, one per user."""
    user = os.getuid() if hasattr(os, "getuid") else "all"
    return Path(tempfile.gettempdir()) / f"paretoformer-latency-{user}.lock"


@contextmanager
def exclusive() -> Iterator[None]:
    """Wait until no other thread or process of this user measures on this host, and keep them waiting meanwhile.

    The lock goes with the process that holds it: nobody waits for the dead.
    """
    if fcntl is None:
        yield
        return
    # Not followed: in a folder that all may write to, the name could be somebody's link to a file of this user.
    file = os.open(lock_path(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads, in the whole process; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
