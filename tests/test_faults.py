"""Faults of what a run depends on: a locked database, a full disk, a server of MLflow that hangs and dies."""

import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import mlflow
import pytest
from conftest import POSTGRESQL
from test_recipes import QUICK, environment, states
from test_tracking import OBJECTIVES, record
from tiny_task import Reports, run_trials, tiny_search, tiny_study

from search.study import retrying
from search.study.interrupts import Stopped, signals_as_exceptions
from search.tracking.background import BackgroundTracking
from search.tracking.mlflow import MlflowTracking

# Tests use ask and tell, without the heartbeats of Study.optimize.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.mark.slow
def test_sixteen_workers_wait_for_a_locked_file(url, monkeypatch):
    """The file is locked until each has failed; then all of them write."""
    monkeypatch.setattr("search.study.database._engine_settings", lambda *_: {"connect_args": {"timeout": 0.01}})
    studies = [tiny_study(url) for _ in range(16)]
    lock = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    waiting, mutex, wait = set(), threading.Lock(), threading.Event()

    def sleep(seconds):
        with mutex:
            waiting.add(threading.get_ident())
            if len(waiting) == 16 and lock.in_transaction:
                lock.execute("COMMIT")
        wait.wait(min(seconds, 0.05))

    monkeypatch.setattr(retrying.time, "sleep", sleep)

    def write(number):
        studies[number].set_user_attr(str(number), number)
        studies[number]._storage.remove_session()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lock.close()
    assert len(waiting) == 16
    written = tiny_study(url).user_attrs
    assert {name: written[name] for name in map(str, range(16))} == {str(number): number for number in range(16)}


@pytest.mark.slow
def test_a_full_disk_is_waited_for_while_the_database_is_written(url, monkeypatch, tmp_path):
    """Files may not grow for three attempts; the trials are as on another disk."""
    expected, study = tiny_study(f"sqlite:///{tmp_path / 'other.db'}"), tiny_study(url)
    run_trials(expected, tiny_search(), 2)
    before, attempts = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    class Fills(Reports):
        def progress(self, trial):
            if trial.epochs == 1:
                limit(1)

    def sleep(seconds):
        attempts.append(seconds)
        if len(attempts) % 3 == 0:
            limit(before[0])

    monkeypatch.setattr(retrying.time, "sleep", sleep)
    try:
        trials = run_trials(study, tiny_search(), 2, reporter=Fills())
    finally:
        limit(before[0])
    assert len(attempts) >= 6
    assert [(trial.state, trial.curve) for trial in trials] == [
        (str(trial.state), trial.curve) for trial in run_trials(expected, tiny_search(), 2)
    ]


@pytest.mark.parametrize(("first", "second"), [(2, 2), (2, 15), (15, 2)])
def test_after_a_signal_the_next_one_ends_the_process_at_once(first, second):
    before = signal.getsignal(second)
    with signals_as_exceptions():
        with pytest.raises(Stopped) as stop:
            os.kill(os.getpid(), first)
        assert signal.getsignal(second) == signal.SIG_DFL
    assert (stop.value.signal, signal.getsignal(second)) == (first, before)


class Server:
    """An MLflow server, on PostgreSQL if there is one."""

    def __init__(self, folder, backend):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.environment["MLFLOW_BACKEND_STORE_URI"] = backend or f"sqlite:///{folder}/mlflow.db"

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        ends = time.monotonic() + 120
        while not self.answers():
            assert time.monotonic() < ends, Path(self.folder / "server.log").read_text()[-2000:]
            time.sleep(0.2)

    def answers(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def send(self, number):
        os.killpg(self.process.pid, number)


@pytest.mark.server
@pytest.mark.slow
def test_what_a_server_missed_while_it_hung_and_was_dead_is_logged_later(request, tmp_path, caplog):
    server = Server(tmp_path, request.getfixturevalue("emptied_postgresql") if POSTGRESQL else None)
    records = [record(number) for number in range(4)]
    server.start()
    try:
        tracking = BackgroundTracking(MlflowTracking(uri=server.uri), start_s=120, trial_s=0.5, finish_s=120)
        tracking.start("nlp", identity="id", objectives=OBJECTIVES, config="")
        tracking.log(0, records[:1])
        server.send(signal.SIGSTOP)
        tracking.log(1, records[:2])  # it returns while the server hangs, and while it is dead
        server.send(signal.SIGKILL)
        server.process.wait()
        tracking.log(2, records[:3])
        server.start()
        assert tracking.finish(records, "all is done")
        client = mlflow.MlflowClient(server.uri)
        runs = client.search_runs([client.get_experiment_by_name("paretoformer").experiment_id])
        assert sorted(run.data.tags["trial"] for run in runs if "trial" in run.data.tags) == ["0", "1", "2", "3"]
    finally:
        server.send(signal.SIGKILL)
        server.process.wait()
    assert any("MLflow" in message and "failed" in message for message in caplog.messages)


NEVER_LOGGED = """
import sys
from search.run import main
from search.tracking.background import BackgroundTracking
BackgroundTracking.__init__.__kwdefaults__.update(start_s=1.0, trial_s=1.0, finish_s=1.0)
main()
"""


@pytest.mark.slow
def test_a_run_ends_although_mlflow_never_answers(tmp_path):
    """A server that accepts connections; how to log the study later is said once."""
    quick = [word for word in QUICK if word != "tracking=none"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"tracking.uri=http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", NEVER_LOGGED, *quick, uri, "n_trials=2", "space.train.epochs=1", "study=unlogged"],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("python -m search.sync unlogged") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert states(f"sqlite:///{tmp_path / 'paretoformer.db'}", "unlogged") == ["complete"] * 2
