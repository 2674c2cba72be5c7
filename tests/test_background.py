"""Tracking in the background: nothing waits for a server that hangs, and nothing is forgotten."""

import threading

import mlflow
import pytest
from test_tracking import OBJECTIVES, record
from tiny_task import TREE, run_trials, tiny_search, tiny_study

from search.study.store import TrialStore
from search.sync.__main__ import main
from search.tracking import Tracking
from search.tracking.background import BackgroundTracking

RECORDS = [record(number) for number in range(4)]


class Hangs(Tracking):
    """Waits in every call until ``answer`` is set; stores the trials that it logs."""

    def __init__(self):
        self.answer, self.called, self.logged = threading.Event(), threading.Event(), []

    def start(self, study, **_):
        self.called.set()
        self.answer.wait()

    def log(self, number, records):
        self.called.set()
        self.answer.wait()
        self.logged.append((number, len(records)))

    def finish(self, records, reason="", importance=dict):
        self.answer.wait()
        self.logged.append(reason)
        return True


def background(tracking, seconds=0.01):
    made = BackgroundTracking(tracking, start_s=seconds, trial_s=seconds, finish_s=seconds)
    made.start("tiny study", identity="", objectives=OBJECTIVES, config="")
    return made


def test_a_trial_is_logged_before_the_next_one_starts():
    other = Hangs()
    other.answer.set()
    tracking = background(other, seconds=60)
    for number in range(3):
        tracking.log(number, RECORDS[: number + 1])
        assert other.logged[-1] == (number, number + 1)
    assert tracking.finish(RECORDS, "done")
    assert other.logged[-1] == "done"


def test_trials_that_end_while_a_call_hangs_are_logged_after_it(caplog):
    other = Hangs()
    tracking = background(other)
    assert other.called.wait(60)
    for number in range(3):  # the trial limit is not waited for again, see below
        tracking.log(number, RECORDS[: number + 1])
    assert not tracking.finish(RECORDS, "done")
    assert "python -m search.sync 'tiny study'" in caplog.text
    assert tracking.url() == ""
    assert other.logged == []
    other.answer.set()
    assert tracking._last.wait(60)
    assert other.logged == [(0, 3), (1, 3), (2, 3), "done"]


def test_while_a_call_hangs_no_further_trial_waits():
    tracking = BackgroundTracking(Hangs(), start_s=0.0, trial_s=10**6)
    tracking.start("tiny", identity="", objectives=OBJECTIVES, config="")
    tracking.log(0, RECORDS)  # would wait for eleven days


def test_an_exception_of_the_tracker_is_logged_and_the_next_trial_too(caplog):
    class Broken(Hangs):
        def log(self, number, records):
            if number == 0:
                raise ValueError("test error")
            super().log(number, records)

    other = Broken()
    other.answer.set()
    tracking = background(other, seconds=60)
    tracking.log(0, RECORDS)
    tracking.log(1, RECORDS)
    assert other.logged == [(1, 4)]
    assert "test error" in caplog.text


@pytest.mark.slow
def test_the_command_logs_a_study_that_was_not_tracked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    identity = {"space": TREE, "task": {"_target_": "tiny_task.FirstToken"}, "costs": ["latency_ms"]}
    study = tiny_study("sqlite:///studies.db", identity=identity)
    TrialStore(study).ceilings(lambda: [1.0])
    run_trials(study, tiny_search(), 2)
    TrialStore(study).study_id()
    options = ["--storage", "sqlite:///studies.db", "--uri", "sqlite:///tracked.db"]
    for _ in range(2):
        assert main(["tiny", *options]) == 0
    client = mlflow.MlflowClient("sqlite:///tracked.db")
    experiment = client.get_experiment_by_name("paretoformer")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags.get("trial", "parent") for run in runs) == ["0", "1", "parent"]
    assert main(["missing", *options]) == 2
    assert "there is no study 'missing'" in capsys.readouterr().err
