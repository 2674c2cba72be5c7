"""Which stale trials a running process of this machine still runs."""

import platform
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy
from tiny_task import tiny_study

from search.study import retrying
from search.study.processes import ProcessState, process_state, shown_name, worker_name
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


def test_what_is_known_of_a_process(child):
    name = worker_name(child.pid)
    assert shown_name(name) == f"{platform.node()}:{child.pid}"
    assert process_state(name) == ProcessState.RUNS
    started_before = f"{name[:-1]}{(int(name[-1]) + 1) % 10}"
    assert process_state(started_before) == ProcessState.ENDED, "this process has got the number of another one"
    child.send_signal(signal.SIGSTOP)
    wait_for(child, "T")
    assert process_state(name) == ProcessState.STOPPED
    child.send_signal(signal.SIGCONT)
    wait_for(child, "RS")
    assert process_state(name) == ProcessState.RUNS
    child.kill()
    wait_for(child, "Z")
    assert process_state(name) == ProcessState.ENDED
    child.wait()
    assert process_state(name) == ProcessState.ENDED


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(shown_name, id="version 0.2"),
        pytest.param(lambda name: re.sub("@.", "@x", name), id="another machine"),
        pytest.param(lambda name: "", id="none"),
    ],
)
def test_nothing_is_known_of_processes_elsewhere(child, change):
    name = worker_name(child.pid)
    child.kill()
    child.wait()
    assert process_state(name) == ProcessState.ENDED
    assert process_state(change(name)) == ProcessState.UNKNOWN


def test_a_trial_whose_process_has_ended_is_requeued_at_once(url, child):
    study = tiny_study(url, heartbeat_s=60, grace_s=600)
    trial = study.ask()
    study._storage._backend.record_heartbeat(trial._trial_id)
    trial.set_user_attr("worker", worker_name(child.pid))
    fail_stale(study, 600)
    assert [each.state.name for each in study.trials] == ["RUNNING"]
    child.kill()
    child.wait()
    fail_stale(study, 600)
    assert [each.state.name for each in study.trials] == ["FAIL", "WAITING"]


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
