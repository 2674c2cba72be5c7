"""Whether the process of a worker still runs, as far as this machine can tell."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from enum import Enum
from functools import cache
from pathlib import Path

from optuna.trial import FrozenTrial

WORKER = "worker"  # user attribute of a trial: the process that runs it
STOPPED, ENDED = "Tt", "ZX"  # states of a process in Linux


class ProcessState(Enum):
    """What is known of a process."""

    RUNS = 1
    STOPPED = 2  # by a signal or a debugger
    ENDED = 3
    UNKNOWN = 4  # it is one of another machine or container, or the system does not tell


def worker_name(number: int | None = None) -> str:
    """The name by which the study knows a process of this machine, this one by default: ``host:number@machine-start``.

    Machine and start tell it from a process of the same number in another container, or of another time. They are left
    out where the system does not tell.
    """
    number = os.getpid() if number is None else number
    shown = f"{platform.node()}:{number}"
    try:
        return f"{shown}@{_machine()}-{_state_and_start(number)[1]}"
    except OSError:
        return shown


def shown_name(worker: str) -> str:
    """``host:number``, for people."""
    return worker.rpartition("@")[0] or worker


def process_state(worker: str) -> ProcessState:
    """What is known of the process with that :func:`worker_name`."""
    parts = re.fullmatch(r".*:(\d+)@(\w+)-(\d+)", worker)
    if parts is None:
        return ProcessState.UNKNOWN
    number, machine, start = parts.groups()
    try:
        if machine != _machine():
            return ProcessState.UNKNOWN
        state, started = _state_and_start(int(number))
    except (FileNotFoundError, ProcessLookupError):
        return ProcessState.ENDED
    except OSError:
        return ProcessState.UNKNOWN
    if started != start or state in ENDED:
        return ProcessState.ENDED
    return ProcessState.STOPPED if state in STOPPED else ProcessState.RUNS


def state_of_process(trial: FrozenTrial) -> ProcessState:
    """The :func:`process_state` of the process that runs ``trial``."""
    return process_state(trial.user_attrs.get(WORKER, ""))


@cache
def _machine() -> str:
    """Tells this boot of this machine, and this container, from others; ``OSError`` where the system does not."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:12]


def _state_and_start(number: int) -> tuple[str, str]:
    """The state of a process of this machine, and when it started, in ticks since the boot."""
    _, _, text = Path(f"/proc/{number}/stat").read_text().rpartition(")")
    state, *fields = text.split()
    return state, fields[18]
