"""A database that fails for a while: transactions are retried, heartbeats go on, and at last the run ends."""

import contextlib
import ctypes
import inspect
import socket
import sqlite3
import struct
import threading
import time

import optuna
import pytest
import sqlalchemy
from conftest import POSTGRESQL
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError, ProgrammingError
from test_study import InTwoMinutes
from tiny_task import TREE, Reports, opened, run_trials, tiny_config, tiny_search, tiny_study

from search.study import retrying
from search.study.attributes import TRAINING, read_record
from search.study.database import LIBPQ
from search.study.requeue import fail_stale
from search.study.retrying import RETRIED, Retrying, RetryingStorage, StorageUnavailableError, unavailable
from search.workers.run import run

# Tests use ask and tell, without the heartbeats of Study.optimize.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
SO_ATTACH_FILTER, BPF_RETURN = 26, 6  # of Linux
SETTINGS = {"n_trials": 3, "budget": None, "patience": None, "min_gain": None, "scale": "auto"}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def no_delay(monkeypatch):
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)


def lost(*_):
    raise OperationalError("statement", {}, sqlite3.OperationalError("disk I/O error"))


@contextlib.contextmanager
def failing(study, when, fails):
    """Let a commit fail, before or after it has taken effect, whenever ``fails()``."""
    storage = study._storage._backend

    def listener(session):
        if fails():
            lost()

    sqlalchemy.event.listen(storage.scoped_session.session_factory, f"{when}_commit", listener)
    try:
        yield
    finally:
        sqlalchemy.event.remove(storage.scoped_session.session_factory, f"{when}_commit", listener)


def every_second():
    """True at every second call."""
    calls = iter(range(10**6))
    return lambda: next(calls) % 2 == 0


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == retrying.__name__]


def outline(study):
    return [(trial.state, trial.values, trial.params, read_record(trial).curve) for trial in study.trials]


def test_every_method_with_a_transaction_is_retried():
    """A version of Optuna with further ones is noticed here."""
    methods = dict(inspect.getmembers(RDBStorage, inspect.isfunction))
    transactions = {name for name, method in methods.items() if "_create_scoped_session(" in inspect.getsource(method)}
    own = {name for name in {**vars(Retrying), **vars(RetryingStorage)} if name in methods and name not in RETRIED}
    assert transactions <= {*RETRIED, *own}


@pytest.mark.slow
def test_a_run_whose_every_second_commit_fails_is_as_one_without_failures(url, no_delay):
    expected, study = tiny_study(url, name="expected"), tiny_study(url)
    run_trials(expected, tiny_search(), 3)
    with failing(study, "before", every_second()):
        run_trials(study, tiny_search(), 3)
    assert outline(study) == outline(expected)


def test_writes_whose_commit_took_effect_and_was_lost_are_not_repeated(url, no_delay):
    study = tiny_study(url)
    trial = study.ask()
    with failing(study, "after", every_second()):
        trial.suggest_int("depth", 1, 9)
        trial.set_user_attr(TRAINING, {"curve": [[1, 0.5]]})
        trial.set_constraint("latency_ms", -1.0)
        study.set_user_attr("a", 1)
        study.tell(trial, [0.5, 1.0])
        study.set_user_attr("a", 2)
    assert outline(study) == [(TrialState.COMPLETE, [0.5, 1.0], trial.params, [(1, 0.5)])]
    assert study.user_attrs["a"] == 2


def test_a_trial_whose_creation_was_lost_is_requeued(url, no_delay, monkeypatch):
    study = tiny_study(url)
    with failing(study, "after", every_second()):
        study.ask()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING] * 2
    study.tell(1, [0.5, 1.0])
    later = time.monotonic() + 61
    monkeypatch.setattr(retrying.time, "monotonic", lambda: later)
    monkeypatch.setattr("search.study.requeue.datetime", InTwoMinutes)
    fail_stale(study, 60)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING]


def test_a_trial_whose_end_was_written_by_a_lost_commit_has_ended_once(url, no_delay):
    study = tiny_study(url)
    trial = study.ask()
    with failing(study, "after", every_second()):
        study.tell(trial, [0.5, 1.0])
    assert [(each.state, each.values) for each in study.trials] == [(TrialState.COMPLETE, [0.5, 1.0])]
    with pytest.raises(ValueError, match="Cannot tell a COMPLETE trial"):
        study.tell(trial, [0.6, 1.0])


def test_a_trial_that_another_worker_has_ended_differently_is_not_taken_for_the_own(url, monkeypatch):
    study = tiny_study(url)
    trial = study.ask()
    storage = study._storage._backend
    other = tiny_study(url)._storage._backend
    ended = []

    def fails():
        if not ended:  # the first attempt is rolled back, and another worker is faster than the second one
            ended.append(True)
            return True
        return False

    def sleep(seconds):
        other.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    monkeypatch.setattr(retrying.time, "sleep", sleep)
    with (
        failing(study, "before", fails),
        pytest.raises(optuna.exceptions.UpdateFinishedTrialError, match="has ended otherwise"),
    ):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5, 1.0])
    assert study.trials[0].state == TrialState.FAIL


def test_an_error_of_the_statement_is_raised_at_once(url, monkeypatch):
    storage = tiny_study(url)._storage._backend
    monkeypatch.setattr(retrying.time, "sleep", lambda _: pytest.fail("it waits"))

    def wrong():
        raise ProgrammingError("statement", {}, sqlite3.ProgrammingError("no such column"))

    with pytest.raises(ProgrammingError):
        storage.retry(wrong)


def test_waiting_is_reported_and_ends(url, monkeypatch, caplog):
    storage = tiny_study(url)._storage._backend
    storage.wait_s = 30
    now = [0.0]
    monkeypatch.setattr(retrying.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    assert storage.retry(lambda: now[0] if now[0] > 10 else lost()) > 10
    assert messages(caplog) == [
        "The database is unavailable, waiting for up to 30 s: disk I/O error",
        f"The database is available again after {now[0]:.0f} s.",
    ]
    with pytest.raises(StorageUnavailableError, match=r"unavailable for 30 s \(storage.wait_s=30\): disk I/O error"):
        storage.retry(lost)
    before = now[0]
    with pytest.raises(StorageUnavailableError):
        storage.retry(lambda: None)
    assert now[0] == before, "after that every call fails at once"


@pytest.mark.slow
def test_a_short_interruption_is_not_reported(url, no_delay, caplog):
    study = tiny_study(url)
    with failing(study, "before", every_second()):
        study.set_user_attr("a", 1)
    assert not messages(caplog)


def test_heartbeats_go_on_after_a_failed_one(url):
    study = tiny_study(url, heartbeat_s=1)
    storage, trial = study._storage._backend, study.ask()
    beats, enough = [], threading.Event()

    def fails():
        beats.append(len(beats))
        if len(beats) == 3:
            enough.set()
        return len(beats) < 3

    thread = optuna.storages._heartbeat.HeartbeatThread(trial._trial_id, storage)
    storage.heartbeat_interval = 0.01
    with failing(study, "before", fails), thread:
        assert enough.wait(10), "the thread has ended"


def test_no_trial_is_stale_within_the_grace_period_after_the_database_was_unavailable(url, monkeypatch, no_delay):
    study = tiny_study(url, heartbeat_s=1, grace_s=60)
    storage, trial = study._storage._backend, study.ask()
    trial.set_user_attr("worker", "alive:1")
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')"))
    with failing(study, "before", every_second()):
        study.set_user_attr("a", 1)
    fail_stale(study, 60)
    assert study.trials[0].state == TrialState.RUNNING
    later = time.monotonic() + 61
    monkeypatch.setattr(retrying.time, "monotonic", lambda: later)
    fail_stale(study, 60)
    assert study.trials[0].state == TrialState.FAIL


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_without_a_database_ends_with_the_cause(url, no_delay):
    study = tiny_study(url)
    study._storage._backend.wait_s = 0

    class Gone(Reports):
        gone = False

        def progress(self, trial):
            self.gone = self.gone or trial.epochs == 1

    reporter = Gone()
    with (
        failing(study, "before", lambda: reporter.gone),
        pytest.raises(Exception) as error,  # noqa: PT011 - an UnboundLocalError in Optuna 5.0
    ):
        run_trials(study, tiny_search(), 2, reporter=reporter)
    assert "disk I/O error" in str(unavailable(error.value))
    assert not [thread for thread in threading.enumerate() if thread.name == "training"]


@pytest.mark.slow
def test_a_run_without_a_database_ends_with_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys, request):
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    config = tiny_config(tmp_path) | SETTINGS
    config["storage"] |= {"heartbeat_s": 10, "grace_s": 60, "wait_s": 0}
    write, gone = RetryingStorage.set_trial_user_attr, []

    def set_trial_user_attr(self, trial_id, key, value):
        if key == TRAINING and value["curve"]:
            opened.append(self)
            gone.append(True)
        write(self, trial_id, key, value)

    monkeypatch.setattr(RetryingStorage, "set_trial_user_attr", set_trial_user_attr)
    arguments = (sqlalchemy.orm.Session, "before_commit", lambda session: gone and lost())
    sqlalchemy.event.listen(*arguments)
    request.addfinalizer(lambda: sqlalchemy.event.remove(*arguments))
    assert run(config) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "The run ends: the database has been unavailable for 0 s (storage.wait_s=0): disk I/O error. "
        "The same command continues the study."
    ]


def test_a_locked_sqlite_file_is_waited_for(url, monkeypatch):
    monkeypatch.setattr("search.study.database._engine_settings", lambda *_: {"connect_args": {"timeout": 0.01}})
    study = tiny_study(url)
    lock = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    attempts = []

    def sleep(_):
        attempts.append(1)
        if len(attempts) == 3:
            lock.execute("COMMIT")

    monkeypatch.setattr(retrying.time, "sleep", sleep)
    study.set_user_attr("a", 1)
    lock.close()
    assert (study.user_attrs["a"], len(attempts)) == (1, 3)


class Proxy:
    """Forwards TCP connections to a server; ``cut`` drops them all and refuses new ones until ``allow``.

    ``passes`` is cleared while the server hangs: it accepts connections and does not answer. ``forget`` does to the
    connections so far what a firewall does to idle ones; new ones are forwarded.
    """

    def __init__(self, host, port):
        self.target, self.open, self.sockets, self.passes = (host, port), True, [], threading.Event()
        self.forgotten = set()
        self.passes.set()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                continue
            server = socket.create_connection(self.target)
            self.sockets += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.passes.wait()
                if source not in self.forgotten:
                    target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.open = False
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.sockets = []

    def allow(self):
        self.open = True

    def forget(self, *, acknowledged):
        """Drop in silence what clients send; unless ``acknowledged``, their kernel notices that nothing arrives."""
        clients = self.sockets[::2]
        self.forgotten.update(clients)
        for client in () if acknowledged else clients:
            drop_packets(client)


def drop_packets(link):
    """Let the kernel drop all packets that arrive at a socket, by a filter of one instruction: to take no byte."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
    link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(instruction)))


@pytest.fixture
def proxied(postgresql, monkeypatch):
    """A proxy of the PostgreSQL server, and a study that is reached through it."""
    monkeypatch.setitem(LIBPQ, "connect_timeout", 2)
    monkeypatch.setitem(LIBPQ, "tcp_user_timeout", 1000)
    engine = sqlalchemy.create_engine(postgresql)
    with engine.connect() as connection:
        info = connection.connection.driver_connection.info
        proxy = Proxy(info.hostaddr or "127.0.0.1", info.port)
    engine.dispose()
    address = sqlalchemy.make_url(postgresql).set(host="127.0.0.1", port=proxy.port)
    study = tiny_study(address.render_as_string(hide_password=False), name="proxied")
    yield proxy, study
    proxy.passes.set()
    study._storage._backend._failure = None
    optuna.delete_study(study_name="proxied", storage=study._storage)
    study._storage._backend.engine.dispose()
    proxy.cut()
    proxy.server.close()


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL, reason="no server given")
@pytest.mark.parametrize("hangs", [False, True])
def test_a_run_goes_on_after_a_server_was_away_or_hung(proxied, hangs, monkeypatch):
    proxy, study = proxied
    if hangs:
        monkeypatch.setattr("search.study.postgresql.ANSWER_S", 0.3)

    class Outages(Reports):
        count = 0

        def progress(self, trial):
            if trial.epochs == 2:
                self.count += 1
                proxy.passes.clear() if hangs else proxy.cut()
                threading.Timer(1.0, proxy.passes.set if hangs else proxy.allow).start()

    reporter = Outages()
    trials = run_trials(study, tiny_search(TREE), 3, reporter=reporter)
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert reporter.count == 3


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL, reason="no server given")
def test_a_server_that_hangs_for_ever_is_noticed_and_reported(proxied, monkeypatch, caplog):
    proxy, study = proxied
    monkeypatch.setattr("search.study.postgresql.TOLD_S", 0.2)
    monkeypatch.setattr("search.study.postgresql.ANSWER_S", 0.5)
    study._storage._backend.wait_s = 4.0
    with study._storage._backend.engine.connect() as connection:
        proxy.passes.clear()
        with pytest.raises(sqlalchemy.exc.OperationalError, match="the server has not answered for 0 s"):
            connection.execute(sqlalchemy.text("SELECT 1"))
    with pytest.raises(StorageUnavailableError, match=r"\(storage.wait_s=4\): connection timeout expired"):
        study.set_user_attr("a", 1)
    assert messages(caplog) == ["The database is unavailable, waiting for up to 4 s: connection timeout expired"]
    assert "The database has not answered for 0 s." in caplog.text


@pytest.mark.skipif(not POSTGRESQL, reason="no server given")
def test_a_process_that_is_stopped_within_a_transaction_keeps_no_lock_for_ever(proxied):
    _, study = proxied
    with study._storage._backend.engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SHOW idle_in_transaction_session_timeout")).scalar() == "5min"
