"""SIGINT and SIGTERM while the database is used: they end the run, whatever the driver's clean-up raises."""

import os
import random
import signal
import sqlite3
import threading
import time

import pytest
import sqlalchemy.exc
from tiny_task import tiny_study

from search.study import retrying
from search.study.interrupts import Stopped, signals_as_exceptions, signals_held


def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def storage(tmp_path):
    return tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")._storage._backend


ERRORS = [
    None,
    sqlalchemy.exc.OperationalError("statement", {}, sqlite3.OperationalError("connection lost")),  # is retried
    sqlalchemy.exc.ProgrammingError("statement", {}, sqlite3.ProgrammingError("transaction in progress")),
    ValueError("not of the database"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_signal_in_a_transaction_is_raised_after_it_and_not_lost_to_an_error(storage, error):
    done = []

    def transaction():
        interrupt()
        done.append("the statements after the signal")
        if error:
            raise error

    with signals_as_exceptions(), pytest.raises(Stopped) as stop:
        storage.retry(transaction)
    assert (len(done), stop.value.signal) == (1, signal.SIGTERM)


def test_a_signal_ends_the_wait_for_a_database(storage, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        interrupt()

    monkeypatch.setattr(retrying.time, "sleep", sleep)

    def unavailable():
        raise ERRORS[1]

    with signals_as_exceptions(), pytest.raises(Stopped):
        storage.retry(unavailable)
    assert len(slept) == 1


@pytest.mark.parametrize(
    ("contexts", "raised_after"),
    [([], 0), ([False], 0), ([True], 2), ([True, True], 3), ([True, False], 0), ([True, False, True], 2)],
)
def test_a_signal_is_raised_in_the_innermost_context_that_does_not_hold_it(contexts, raised_after):
    left = []

    def enter(rest):
        if not rest:
            interrupt()
            left.append("the innermost")
            return
        with signals_held(rest[0]):
            enter(rest[1:])
            left.append(rest)

    with signals_as_exceptions(), pytest.raises(Stopped):
        enter(contexts)
    assert len(left) == raised_after


def test_other_threads_do_not_hold_a_signal_back():
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with signals_held():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        with signals_as_exceptions(), pytest.raises(Stopped):
            interrupt()
    finally:
        leave.set()
        thread.join()


def test_a_signal_that_was_not_raised_is_forgotten():
    with signals_held(), signals_as_exceptions():
        interrupt()
    with signals_as_exceptions(), signals_held(False):
        pass


@pytest.mark.slow
def test_a_signal_at_any_moment_of_a_statement_ends_the_run(url):
    """Within psycopg, it left the connection with a statement in progress, and the error of its clean-up came out."""
    study, draw = tiny_study(url), random.Random(0)

    def write(number):
        timer.start()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            study.set_user_attr("number", number)

    for number in range(100):
        timer = threading.Timer(draw.uniform(0.001, 0.02), interrupt)
        with signals_as_exceptions(), pytest.raises(Stopped):
            write(number)
        timer.join()
    assert study.user_attrs["number"] == 99
