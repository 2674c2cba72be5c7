"""The end of what precedes the first trial, in the midst of a phase."""

import signal
import threading

import pytest
from tiny_task import FirstToken, tiny_config

from search.budget import alarm
from search.budget.alarm import END_S, ending_in_time
from search.budget.deadline import Deadline, OutOfTimeError
from search.study.interrupts import signals_held
from search.workers import run as workers_run
from spaces.baselines import Baseline
from spaces.baselines.of_task import evaluate_baselines


def unexpected(error):
    pytest.fail(f"the process would have ended: {error}")


def endless(*_):
    while True:
        pass


class Endless(Baseline):
    name = "endless"
    fit = forward = endless


class WithEndlessBaseline(FirstToken):
    def baselines(self):
        return (Endless(),)


class Worker(threading.Thread):
    """Enters the context in another thread than the main one."""

    def run(self):
        with ending_in_time(Deadline(0.0), unexpected):
            self.passed = True


@pytest.mark.parametrize(
    "phase",
    [endless, lambda: evaluate_baselines(WithEndlessBaseline())],
    ids=["python", "a baseline, whose failures are warnings"],
)
@pytest.mark.parametrize("left_s", [END_S + 0.05, END_S, 0.0, -5.0])
def test_a_phase_ends_when_the_budget_is_used_up_but_for_the_end_of_the_process(phase, left_s, monkeypatch):
    monkeypatch.setattr(alarm, "REACTION_S", 600.0)
    before = signal.getsignal(signal.SIGALRM)
    deadline = Deadline(left_s)
    deadline.stopwatch.phase("reading the data")
    with (
        pytest.raises(OutOfTimeError, match=r"before the first trial, .*: reading the data"),
        ending_in_time(deadline, unexpected),
    ):
        phase()
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_nothing_is_raised_within_a_transaction_but_after_it():
    reached = []

    def transaction():
        with ending_in_time(Deadline(600.0), unexpected):
            with signals_held():
                signal.raise_signal(signal.SIGALRM)
                reached.append("its end")
            reached.append("what follows")

    with pytest.raises(OutOfTimeError):
        transaction()
    assert reached == ["its end"]


def test_a_process_that_no_exception_reaches_is_ended(monkeypatch):
    monkeypatch.setattr(alarm, "REACTION_S", -600.0)
    ended, errors = threading.Event(), []

    def exit_at_once(error):
        errors.append(str(error))
        ended.set()

    with ending_in_time(Deadline(600.0), exit_at_once):
        assert ended.wait(60.0)
    assert "used up before the first trial" in errors[0]


@pytest.mark.parametrize("budget_s", [float("inf"), 600.0])
def test_a_context_that_ends_in_time_changes_nothing(budget_s):
    with ending_in_time(Deadline(budget_s), unexpected):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert not [
        each for each in threading.enumerate() if isinstance(each, threading.Timer) and not each.finished.is_set()
    ]


def test_other_threads_are_left_alone():
    worker = Worker()
    worker.start()
    worker.join()
    assert worker.passed


def test_a_run_ends_within_a_phase_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("search.assemble.validate_data", endless)
    settings = {"budget": "60s", "n_trials": 1, "patience": None, "min_gain": None, "scale": "auto"}
    assert workers_run.run(tiny_config(tmp_path) | settings, used_s=60.0 - END_S - 1.0) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("The 60 s of the time budget were used up before the first trial, after ")
    assert not list(tmp_path.iterdir())
