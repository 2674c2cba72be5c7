"""Studies behind a gRPC server: the same results, heartbeats, calls that are repeated while the server is away."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import optuna
import pytest
from conftest import POSTGRESQL
from optuna.storages._grpc.server import make_server
from optuna.trial import TrialState
from test_retrying import Proxy
from tiny_task import Reports, run_trials, tiny_search, tiny_study

from search.proxy.__main__ import main
from search.study import proxy, retrying
from search.study.attributes import TRAINING, read_record
from search.study.database import open_database
from search.study.proxy import HEARTBEAT, ProxyStorage, address
from search.study.requeue import fail_stale
from search.study.retrying import StorageUnavailableError
from search.study.set_once import SetOnceStorage
from search.study.storage import open_read_only
from spaces.dimensions import ConfigError

# Tests use ask and tell, without the heartbeats of Study.optimize.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
ROOT = Path(__file__).parents[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def served(database, port):
    """A server in this process."""
    storage = open_database(database, SetOnceStorage)
    server = make_server(optuna.storages.get_storage(storage), "127.0.0.1", port, ThreadPoolExecutor(4))
    server.start()
    try:
        yield server
    finally:
        server.stop(None).wait()
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def url(database):
    port = free_port()
    with served(database, port):
        yield f"grpc://127.0.0.1:{port}"


class Failing(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return "the server is away"


class Flaky:
    """A stub of which every second call fails, before or after it has taken effect."""

    def __init__(self, stub, when):
        self.stub, self.when, self.calls = stub, when, 0

    def __getattr__(self, name):
        def call(request):
            self.calls += 1
            if self.calls % 2 and self.when == "before":
                raise Failing
            answer = getattr(self.stub, name)(request)
            if self.calls % 2:
                raise Failing
            return answer

        return call


def make_flaky(study, when):
    storage = study._storage
    storage._stub = storage._cache.grpc_client = Flaky(storage._stub, when)


@pytest.fixture
def no_delay(monkeypatch):
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)


def outline(study):
    return [(trial.state, trial.values, trial.params, read_record(trial).curve) for trial in study.trials]


@pytest.mark.slow
def test_a_study_behind_a_server_is_that_of_the_database(url, database):
    expected, study = tiny_study(database, name="expected"), tiny_study(url)
    run_trials(expected, tiny_search(), 2)
    run_trials(study, tiny_search(), 2)
    assert outline(study) == outline(expected)
    assert all(trial.user_attrs[HEARTBEAT] >= 1 for trial in study.trials)
    with open_read_only(url) as storage:
        assert optuna.get_all_study_names(storage) == ["expected", "tiny"]


@pytest.mark.slow
def test_a_run_whose_every_second_call_fails_is_as_one_without_failures(url, no_delay):
    expected, study = tiny_study(url, name="expected"), tiny_study(url)
    run_trials(expected, tiny_search(), 2)
    make_flaky(study, "before")
    run_trials(study, tiny_search(), 2)
    assert outline(study) == outline(expected)


def test_writes_whose_answer_was_lost_are_not_repeated(url, no_delay):
    study = tiny_study(url)
    trial = study.ask()
    make_flaky(study, "after")
    trial.suggest_int("depth", 1, 9)
    trial.set_user_attr(TRAINING, {"curve": [[1, 0.5]]})
    study.tell(trial, [0.5, 1.0])
    assert outline(study) == [(TrialState.COMPLETE, [0.5, 1.0], trial.params, [(1, 0.5)])]


def test_every_call_of_the_server_is_retried():
    """A version of Optuna with further ones is noticed here."""
    own = {"wait_server_ready", "close", "set_trial_state_values"}
    methods = {name for name in vars(optuna.storages.GrpcStorageProxy) if not name.startswith("_")}
    assert methods - own == set(proxy.CALLS)


@pytest.mark.slow
def test_a_trial_is_stale_when_its_heartbeat_has_not_changed_for_the_grace_period(url, monkeypatch):
    study, other = tiny_study(url, grace_s=60), tiny_study(url, grace_s=60)
    now = [1000.0]
    monkeypatch.setattr(proxy.time, "monotonic", lambda: now[0])
    alive, dead = other.ask(), other.ask()
    for trial in (alive, dead):
        trial.set_user_attr("worker", "there:1")
        other._storage.record_heartbeat(trial._trial_id)
    for _ in range(4):
        fail_stale(study, 60)
        now[0] += 25
        other._storage.record_heartbeat(alive._trial_id)
    fail_stale(study, 60)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]


def test_no_trial_is_stale_within_the_grace_period_after_the_server_was_away(url, monkeypatch, no_delay):
    study = tiny_study(url, grace_s=60)
    now = [1000.0]
    monkeypatch.setattr(proxy.time, "monotonic", lambda: now[0])
    study.ask().set_user_attr("worker", "there:1")
    fail_stale(study, 60)
    now[0] += 100
    make_flaky(study, "before")
    study.set_user_attr("a", 1)
    fail_stale(study, 60)
    assert study.trials[0].state == TrialState.RUNNING


def test_a_server_that_stays_away_ends_the_run_with_the_cause(database):
    port = free_port()
    with served(database, port):
        study = tiny_study(f"grpc://127.0.0.1:{port}")
    study._storage.wait_s = 0
    study._storage.record_heartbeat(1)  # which is left out
    with pytest.raises(StorageUnavailableError, match=r"unavailable for 0 s \(storage.wait_s=0\): failed to connect"):
        study.set_user_attr("a", 1)


def test_a_server_that_does_not_answer_a_call_is_away(url, monkeypatch):
    study, answer = tiny_study(url), threading.Event()
    study._storage.wait_s = 0
    monkeypatch.setattr(proxy, "CALL_S", 0.05)
    monkeypatch.setattr(SetOnceStorage, "set_study_user_attr", lambda *_: answer.wait())
    with pytest.raises(StorageUnavailableError, match="Deadline Exceeded"):
        study.set_user_attr("a", 1)
    answer.set()


@pytest.mark.parametrize(
    "url", ["grpc://", "grpc:host", "grpc://host/x", "grpc://me:secret@host:1", "grpc://host:port", "grpc://host:70000"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="is no address of a gRPC server; write grpc://HOST:PORT"):
        address(url)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no filter of a socket")
def test_a_connection_that_a_firewall_has_forgotten_is_replaced(url, monkeypatch):
    """Its packets are dropped in silence; a call that has failed would be repeated on the same connection."""
    monkeypatch.setattr(proxy, "CALL_S", 20.0)
    monkeypatch.setitem(proxy.CHANNEL, "grpc.keepalive_timeout_ms", 1000)
    between = Proxy("127.0.0.1", address(url)[1])
    study = tiny_study(f"grpc://127.0.0.1:{between.port}")
    study._storage.wait_s = 60.0
    try:
        for number in range(2):
            study.set_user_attr("a", number)
            assert study.user_attrs["a"] == number
            between.forget(acknowledged=False)
    finally:
        study._storage.close()
        between.cut()
        between.server.close()


def test_without_a_server_the_message_says_how_to_start_one(monkeypatch):
    monkeypatch.setattr(proxy, "START_S", 0.1)
    port = free_port()
    with pytest.raises(ConfigError, match=f"no server answers at grpc.*python -m search.proxy --port {port}"):
        ProxyStorage(f"grpc://127.0.0.1:{port}", heartbeat_s=1, grace_s=2, wait_s=0)


def start(database, port):
    environment = {**os.environ, "PARETOFORMER_STORAGE": database, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "search.proxy", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert f"storage.url=grpc://127.0.0.1:{port}" in process.stdout.readline()
    process.stdout.close()
    return process


@pytest.mark.slow
def test_nothing_is_lost_when_the_server_is_killed_and_started_again(request, tmp_path):
    database = request.getfixturevalue("postgresql") if POSTGRESQL else f"sqlite:///{tmp_path / 'studies.db'}"
    port = free_port()
    server = start(database, port)
    study = tiny_study(f"grpc://127.0.0.1:{port}", name="served")

    class Kills(Reports):
        killed = 0

        def progress(self, trial):
            nonlocal server
            if trial.epochs == 2:
                server.kill()
                server.wait()
                server = start(database, port)
                self.killed += 1

    reporter = Kills()
    trials = run_trials(study, tiny_search(), 3, reporter=reporter)
    assert [(trial.state, len(trial.curve)) for trial in trials] == [("complete", 3)] * 3
    assert (reporter.killed, len(study.trials)) == (3, 3)
    optuna.delete_study(study_name="served", storage=study._storage)
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0


def test_the_server_listens_on_this_machine_alone(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"--host HOST\s+address to listen on \(127\.0\.0\.1\)", capsys.readouterr().out)


def test_a_port_in_use_is_refused(database, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main(["--storage", database, "--port", str(port)]) == 2
    assert "choose a free port" in capsys.readouterr().err
