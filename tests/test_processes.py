"""Which stale trials a running process of this machine still runs."""

import platform
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy
from tiny_task import tiny_study

from search.study import retrying
from search.study.processes import runs_here, worker_name
from search.study.requeue import fail_stale

pytestmark = [
    pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="the system does not tell"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed"),
]


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def state(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(process, states):
    while state(process) not in states:
        time.sleep(0.01)


def test_a_process_runs_unless_it_is_stopped_or_has_ended(child):
    name = f"{platform.node()}:{child.pid}"
    later = datetime.now() + timedelta(seconds=1)
    assert runs_here(name, later)
    assert not runs_here(name, datetime.now() - timedelta(days=1)), "another process had its number before"
    assert not runs_here(f"another:{child.pid}", later)
    child.send_signal(signal.SIGSTOP)
    wait_for(child, "T")
    assert not runs_here(name, later)
    child.send_signal(signal.SIGCONT)
    wait_for(child, "RS")
    assert runs_here(name, later)
    child.kill()
    wait_for(child, "Z")
    assert not runs_here(name, later)
    child.wait()
    assert not runs_here(name, later)


def test_a_trial_without_heartbeats_is_that_of_its_process_until_this_hangs(url, monkeypatch):
    study = tiny_study(url, heartbeat_s=1, grace_s=60)
    trial, storage = study.ask(), study._storage._backend
    trial.set_user_attr("worker", worker_name())
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        hour_ago = sqlalchemy.func.now() - timedelta(hours=1)
        if storage.engine.name == "sqlite":
            hour_ago = sqlalchemy.text("datetime('now', '-1 hour')")
        table = sqlalchemy.table("trial_heartbeats", sqlalchemy.column("heartbeat"))
        connection.execute(sqlalchemy.update(table).values(heartbeat=hour_ago))
    states, now = [], [time.monotonic()]
    monkeypatch.setattr(retrying.time, "monotonic", lambda: now[0])
    for seconds in (0, 9 * 60, 2 * 60):
        now[0] += seconds
        fail_stale(study, 60)
        states.append(study.trials[0].state.name)
    assert states == ["RUNNING", "RUNNING", "FAIL"]
