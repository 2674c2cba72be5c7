"""The time budget of a run, on a clock that advances with the training steps."""

import json
import math
from dataclasses import replace

import pytest
from tiny_task import OBJECTIVES, TREE, Clock, Reports, TimedTask, tiny_config, tiny_search, tiny_study

from search.budget.deadline import OUT_OF_TIME, Deadline, OutOfTimeError, TrialSeconds, was_cut
from search.budget.reserve import closing_s, remeasuring_s
from search.config import parse_duration
from search.lifecycle import Done, Resume, Sample
from search.report.status import StatusLine, format_seconds
from search.study.history import History
from search.study.records import Objectives, Record, State, Stop
from search.study.store import TrialStore
from search.worker import _queue, work
from search.workers import run as workers_run
from spaces.dimensions import ConfigError

STEPS, EPOCHS = 4, 3  # of an epoch and of a training, see tiny_task.py


@pytest.fixture
def run(tmp_path):
    """Run a worker with a budget; returns why it ended, the seconds it took and the study's trials."""
    study = tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")

    def with_budget(budget_s, *, n_trials=None, slow_from=10**9, reserve_s=0.0, **settings):
        clock = Clock()
        deadline = Deadline(budget_s, clock=clock)
        deadline.reserve_s = reserve_s
        task = TimedTask(clock, slow_from)
        search = tiny_search(task=task, deadline=deadline, checkpoints=tmp_path / "checkpoints", **settings)
        store = TrialStore(study)
        why = work(store, search, n_trials, Reports(), lambda trial: None, grace_s=60)
        return why, clock.seconds, store.records()

    with_budget.folder = tmp_path / "checkpoints"
    return with_budget


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("10min", 600), ("2h", 7200), ("1h30min", 5400), ("1h30min5s", 5405), ("1.5h", 5400), ("90", 90),
        (90, 90), (0.5, 0.5), ("1h 30min", 5400),
    ],
)  # fmt: skip
def test_a_duration_is_parsed(text, seconds):
    assert parse_duration(text, "budget") == seconds


@pytest.mark.parametrize("value", ["", "10m", "min", "-5s", "0s", 0, -1, True, None, "1min2h", "ten", float("inf")])
def test_another_text_is_no_duration(value):
    with pytest.raises(ConfigError, match=r"budget=.*: it must be a duration such as 90s, 10min, 2h or 1h30min"):
        parse_duration(value, "budget")


def test_a_deadline_keeps_a_reserve():
    clock = Clock()
    deadline = Deadline(60.0, used_s=5.0, clock=clock)
    deadline.reserve_s = 10.0
    clock.seconds = 20.0
    assert (deadline.elapsed_s(), deadline.total_left_s(), deadline.left_s()) == (25.0, 35.0, 25.0)
    assert not deadline.is_over()
    clock.seconds = 45.0
    assert deadline.is_over()
    assert not Deadline(clock=clock).is_over()


@pytest.mark.slow
def test_a_run_ends_within_its_budget_with_complete_trials(run):
    why, seconds, trials = run(30.0)
    assert why == "the 6 s left of the time budget are too short for another trial"
    assert seconds == 2 * EPOCHS * STEPS
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert all(trial.training_s == EPOCHS * STEPS for trial in trials)


@pytest.mark.slow
def test_n_trials_ends_a_run_before_its_budget_is_used_up(run):
    why, seconds, trials = run(1000.0, n_trials=2)
    assert why == "the study has 2 trials (n_trials=2)"
    assert (seconds, len(trials)) == (2 * EPOCHS * STEPS, 2)


@pytest.mark.slow
def test_an_exhausted_space_ends_a_run_before_its_budget_is_used_up(run):
    tree = {
        "attention": {"softmax": TREE["attention"]["softmax"]},
        "model": {**TREE["model"], "width": 4},
        "train": {**TREE["train"], "lr": 0.01},
    }
    assert run(1000.0, tree=tree)[0] == "every architecture of the space has been tried"


@pytest.mark.parametrize(
    ("budget_s", "slow_from", "epochs", "seconds"),
    [
        (2.0, 10**9, 0, 2),  # within the first epoch: without a checkpoint
        # After the second epoch, as the third one would take longer than is left.
        pytest.param(10.0, 10**9, 2, 8, marks=pytest.mark.slow),
        # Within the second epoch, one step after the deadline.
        pytest.param(9.0, STEPS, 1, 14, marks=pytest.mark.slow),
    ],
)
def test_a_trial_that_the_budget_cuts_is_paused_and_resumed_by_the_next_run(run, budget_s, slow_from, epochs, seconds):
    why, used_s, (cut,) = run(budget_s, slow_from=slow_from)
    assert (cut.state, cut.reason, cut.stop.epoch, cut.epochs) == ("paused", OUT_OF_TIME, epochs, epochs)
    assert used_s == cut.training_s == seconds
    assert OUT_OF_TIME in why or "too short" in why
    assert len(list(run.folder.rglob("*.pt"))) == (epochs > 0)
    _, used_s, trials = run(1000.0, n_trials=1)
    assert [(trial.state, trial.number) for trial in trials] == [("complete", cut.number)]
    assert [epoch for epoch, _ in trials[0].curve] == [1, 2, 3]
    assert used_s == (EPOCHS - epochs) * STEPS, "no finished epoch is trained again"
    assert not list(run.folder.rglob("*.pt"))


@pytest.mark.slow
def test_a_resumed_trial_that_is_cut_at_once_keeps_its_checkpoint(run):
    run(10.0)
    _, _, (cut,) = run(1.0)
    assert (cut.state, cut.epochs, cut.number) == ("paused", 2, 0)
    _, used_s, (trial,) = run(1000.0, n_trials=1)
    assert (trial.state, used_s) == ("complete", STEPS)
    assert not list(run.folder.rglob("*.pt"))


@pytest.mark.slow
def test_a_trial_cut_within_an_epoch_has_the_curve_of_an_uninterrupted_one(run, tmp_path):
    run(9.0, slow_from=STEPS)
    _, _, (resumed,) = run(1000.0, n_trials=1)
    store = TrialStore(tiny_study(f"sqlite:///{tmp_path / 'uninterrupted.db'}"))
    work(store, tiny_search(), 1, Reports(), lambda trial: None, grace_s=60)
    assert resumed.curve == store.records()[0].curve


def test_a_run_whose_budget_is_used_up_before_its_first_trial_says_by_what():
    clock = Clock()
    deadline = Deadline(60.0, used_s=5.0, clock=clock)
    for name, seconds in (("importing", 30.0), ("reading the data", 10.0), ("fitting baselines", 25.0)):
        deadline.check()
        deadline.stopwatch.phase(name)
        clock.seconds += seconds
    with pytest.raises(OutOfTimeError) as error:
        deadline.check()
    assert str(error.value) == (
        "The 60 s of the time budget were used up before the first trial, after 70 s: importing 30 s, "
        "fitting baselines 25 s, reading the data 10 s. Give more time (budget=...)."
    )
    Deadline(clock=clock).check()


def test_a_run_that_is_out_of_time_reads_no_data_and_stores_nothing(tmp_path, monkeypatch, capsys):
    read = []
    monkeypatch.setattr("search.assemble.validate_data", read.append)
    settings = {"budget": "60s", "n_trials": 1, "patience": None, "min_gain": None, "scale": "auto"}
    assert workers_run.run(tiny_config(tmp_path) | settings, used_s=61.0) == 1
    assert "used up before the first trial" in capsys.readouterr().err
    assert workers_run.run(tiny_config(tmp_path) | settings, used_s=61.0, further=True) == 0
    assert not read
    assert not list(tmp_path.iterdir())


def test_the_used_share_of_a_budget_leaves_the_reserve_out():
    deadline = Deadline(100.0, used_s=40.0, clock=Clock())
    deadline.reserve_s = 20.0
    assert deadline.used_share() == 0.5
    deadline.reserve_s = 99.0
    assert deadline.used_share() == 1.0
    assert Deadline().used_share() == 0.0


def test_nothing_is_started_when_only_the_reserve_is_left(run):
    assert run(30.0, reserve_s=30.0) == (OUT_OF_TIME, 0.0, [])


class Proposes:
    """Proposes to resume trial 7, if ``resumes``, or to sample; stores what was allowed."""

    def __init__(self, resumes):
        self.resumes, self.allowed, self.available_s = resumes, [], None

    def propose(self, history, *, may_start, repeats):
        self.allowed.append(may_start)
        self.available_s = history.available_s
        return Resume(7) if self.resumes and not may_start else (Sample() if may_start else Done())


DONE = [Record(number, State.COMPLETE, training_s=seconds) for number, seconds in enumerate([5.0, 20.0, 30.0])]


@pytest.mark.parametrize(
    ("left_s", "resumes", "allowed", "queued"),
    [
        (100.0, True, [True], True),
        (20.0, True, [True], True),  # as long as a typical trial takes
        (19.0, True, [False], True),  # a paused trial is resumed instead
        (19.0, False, [False, True], True),  # nothing is paused, and the fastest trial took 5 s
        (4.0, False, [False], False),
    ],
)
def test_near_the_deadline_paused_trials_come_first(tmp_path, monkeypatch, left_s, resumes, allowed, queued):
    store = TrialStore(tiny_study(f"sqlite:///{tmp_path / 'studies.db'}"))
    monkeypatch.setattr(store, "resume", lambda number: None)
    proposer = Proposes(resumes)
    search = replace(tiny_search(deadline=Deadline(left_s, clock=Clock())), proposer=proposer)
    assert _queue(store, search, DONE, 99) is queued
    assert (proposer.allowed, proposer.available_s) == (allowed, left_s)


def test_the_seconds_of_trials_are_those_of_complete_ones():
    paused = Record(3, State.PAUSED, training_s=1.0)
    assert TrialSeconds.of([*DONE, paused]) == TrialSeconds(typical=20.0, fastest=5.0)
    assert TrialSeconds.of([paused]) == TrialSeconds(0.0, 0.0)


@pytest.mark.parametrize(("available_s", "resumable"), [(math.inf, [1, 2]), (20.0, [1, 2]), (19.9, [1]), (3.9, [])])
def test_paused_trials_that_finish_in_time_can_be_resumed(available_s, resumable):
    architecture = {"train": {"epochs": 4}}
    untrained = Record(0, State.PAUSED, architecture=architecture, stop=Stop(OUT_OF_TIME, 0))
    fast = Record(1, State.PAUSED, curve=[(1, 0.5), (2, 0.6)], cpu_seconds=[2.0, 4.0], architecture=architecture)
    slow = Record(2, State.PAUSED, curve=[(1, 0.5), (2, 0.6)], cpu_seconds=[10.0, 20.0], architecture=architecture)
    history = History.of([untrained, fast, slow], OBJECTIVES)
    history.available_s = available_s
    assert history.numbers[history.paused].tolist() == resumable


def test_only_trials_paused_by_the_deadline_count_as_cut():
    cut = Record(0, State.PAUSED, stop=Stop(OUT_OF_TIME, 1))
    others = [replace(cut, state=State.REPLACED), replace(cut, stop=Stop("a rule", 1)), Record(0, State.PAUSED)]
    assert [was_cut(each) for each in [cut, *others]] == [True, False, False, False]


def test_the_reserve_follows_from_the_front_and_the_measured_seconds():
    objectives = Objectives("accuracy", "maximize", ("latency_ms",), 0.5, 1.0, (1.0,))
    fast = Record(0, State.COMPLETE, {"latency_ms": 0.1}, metric=0.6, latency_s=0.5)
    good = Record(1, State.COMPLETE, {"latency_ms": 0.2}, metric=0.7, latency_s=1.5)
    bad = Record(2, State.COMPLETE, {"latency_ms": 0.3}, metric=0.6)  # its costs were those of another one
    assert remeasuring_s([fast, good, bad], objectives) == 2.0 * 2 * 1.0
    assert remeasuring_s([], objectives) == 0.0
    assert closing_s(1.0) - closing_s(0.0) == 5.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3725, "1:02:05")]
)
def test_seconds_are_formatted(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("level", ["text", "json"])
def test_the_status_is_printed_when_nothing_else_is_and_less_and_less_often(level, capsys, monkeypatch):
    clock = Clock()
    status = StatusLine(Deadline(600.0, clock=clock), level=level)
    monkeypatch.setattr("search.report.status.time.monotonic", clock)
    status.phase("reading the data")
    capsys.readouterr()
    seen = []

    def run_until(end):
        while clock.seconds < end:
            clock.seconds += 1.0
            status.print_if_silent()
            if out := capsys.readouterr().out:
                seen.append((clock.seconds, out))

    run_until(250.0)
    assert [seconds for seconds, _ in seen] == [4.0, 12.0, 28.0, 60.0, 120.0, 180.0, 240.0]
    first = seen[0][1]
    if level == "json":
        expected = {"event": "status", "text": "reading the data", "elapsed_s": 4.0, "left_s": 596.0}
        assert json.loads(first) == expected
    else:
        assert first == "9:56 left · reading the data\n"
    seen.clear()
    status.write("a trial")
    assert capsys.readouterr().out == "a trial\n"
    run_until(263.0)
    assert [seconds for seconds, _ in seen] == [254.0, 262.0]


def test_the_status_begins_with_the_time_left(capsys):
    clock = Clock()
    status = StatusLine(Deadline(600.0, clock=clock))
    status.phase("reading the data")
    assert capsys.readouterr().out == "reading the data ...\n"
    clock.seconds = 700.0
    assert status.line() == "0:00 left · reading the data"
    assert StatusLine(Deadline(clock=clock, used_s=5.0)).line() == "0:05 · "
