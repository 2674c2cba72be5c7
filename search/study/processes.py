"""Whether the process of a worker still runs, as far as this machine can tell."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from pathlib import Path

from optuna.trial import FrozenTrial

WORKER = "worker"  # user attribute of a trial: the process that runs it
STOPPED = "TtZX"  # states of a process in Linux: stopped, traced, ended


def worker_name() -> str:
    """The name by which the study knows this process."""
    return f"{platform.node()}:{os.getpid()}"


def runs_trial(trial: FrozenTrial) -> bool:
    """Whether a process of this machine runs ``trial``; see :func:`runs_here`."""
    worker = trial.user_attrs.get(WORKER)
    return worker is not None and trial.datetime_start is not None and runs_here(worker, trial.datetime_start)


def runs_here(worker: str, since: datetime) -> bool:
    """Whether the process called ``worker`` is one of this machine, runs, and did so at the local time ``since``.

    False where the system does not tell, and of a process that is stopped.
    """
    host, _, number = worker.rpartition(":")
    if host != platform.node():
        return False
    try:
        _, _, text = Path(f"/proc/{number}/stat").read_text().rpartition(")")
        up_s = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return False
    state, *fields = text.split()
    age_s = up_s - int(fields[18]) / os.sysconf("SC_CLK_TCK")
    return state not in STOPPED and age_s >= (datetime.now() - since).total_seconds()
