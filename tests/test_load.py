"""The command that measures storage and decisions: a fake objective, and what it counts as lost."""

import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing, suppress
from pathlib import Path

import optuna
import pytest
from conftest import POSTGRESQL
from omegaconf import OmegaConf

from search.config import CONF
from search.load import measure
from search.load.__main__ import HEADER, _parser, main
from search.load.measure import Spent, fill, lost, opened
from search.load.objective import EPOCHS, OBJECTIVES, ended_trials, fake_search
from search.pruning.ceiling import Ceiling
from search.samplers.surrogate import SurrogateSampler
from search.study import bulk
from search.study.attributes import TRAINING
from search.study.bulk import add_trials
from search.study.history import History
from search.study.records import front
from search.study.store import TrialStore


def test_the_trials_before_are_as_workers_store_them():
    study = optuna.create_study(directions=["maximize", "minimize"])
    for trial in ended_trials(40):
        study.add_trial(trial)
    assert list(lost(study, 40)) == []
    records = TrialStore(study).records()
    assert all(record.timing and record.cpu_seconds == list(range(1, EPOCHS + 1)) for record in records)
    assert 1 < len(front(records, OBJECTIVES)) < 40


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")  # it asks for a trial
def test_what_is_lost_is_told(tmp_path):
    with opened(f"sqlite:///{tmp_path / 'a.db'}", "study") as study:
        first, *_ = ended_trials(1)
        study.add_trial(first)
        study.add_trial(first)
        study.ask()
        assert list(lost(study, 4)) == [
            "3 trials instead of 4",
            "1 are running or queued",
            "1 are incomplete",
            "2 were run twice",
        ]


@pytest.mark.slow
def test_trials_are_added_as_optuna_adds_them(url, monkeypatch, time_zone):
    monkeypatch.setattr(bulk, "BATCH", 4)
    trials = list(ended_trials(30))
    with opened(url, "expected") as expected, opened(url, "study") as study:
        expected.add_trials(trials)
        add_trials(study, trials[:7])
        add_trials(study, trials[7:])
    with opened(url, "expected") as expected, opened(url, "study") as study:  # anew: what is cached is no proof
        own, others = study.trials, expected.trials
    for trial in own:
        trial._trial_id -= len(others)
    assert own == others


@pytest.mark.slow
def test_a_study_is_filled_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill(url, "study", 3)
    fill(url, "study", 4)
    fill(url, "study", 2)
    with opened(url, "study") as study:
        assert len(study.trials) == 4
        assert list(lost(study, 4)) == []


def test_only_the_outermost_calls_of_the_storage_are_counted(monkeypatch):
    now, spent = [0.0], Spent()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    class Storage:
        def set_trial_user_attr(self, trial_id, key, value):
            now[0] += 1
            self.get_trial(trial_id)

        def get_trial(self, trial_id):
            now[0] += 2

    for name in measure.CALLS:
        if not hasattr(Storage, name):
            setattr(Storage, name, None)
    storage = Storage()
    spent.watch(storage)
    storage.set_trial_user_attr(0, TRAINING, {})
    storage.set_trial_user_attr(0, "other", [])
    storage.get_trial(0)
    assert (spent.storage_s, spent.reports, spent.calls) == (8.0, [3.0], 3)


def cost(action):
    """Calls of functions, and bytes at the peak."""
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    tracemalloc.start()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return calls, peak


@pytest.mark.slow
def test_the_cost_of_a_decision_grows_no_faster_than_the_trials():
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials(list(ended_trials(1601)))
    records, costs = TrialStore(study).records(), []
    for count in (400, 800, 1600):
        history, search = (
            History.of(records[:count], OBJECTIVES),
            fake_search(SurrogateSampler(candidates=32), Ceiling()),
        )
        search.proposer.propose(history, may_start=True, repeats=False)
        history.add(records[count])  # what the earlier decision has computed does not count
        costs.append(
            [
                *cost(lambda: search.proposer.propose(history, may_start=True, repeats=False)),  # noqa: B023
                *cost(lambda: search.pruner.should_stop(history.record(records[0].number), history)),  # noqa: B023
            ]
        )
    assert all(more <= 2.3 * less for each in itertools.pairwise(costs) for less, more in zip(*each, strict=True)), (
        costs
    )


def rows(output):
    """The cells of the table that the command prints."""
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("|")]
    assert all(len(line) == len(lines[0]) for line in lines[2:])
    return lines[2:]


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_number_of_trials_and_workers(tmp_path, capsys):
    arguments = ["--storage", f"sqlite:///{tmp_path / 'a.db'}", "--trials", "20", "--workers", "1", "2", "--run", "4"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert output.startswith("20 trials: read in ")
    assert [(*row[:3], row[-1]) for row in rows(output)] == [
        ("sqlite", "20", "1", "nothing"),
        ("sqlite", "24", "2", "nothing"),
    ]


@pytest.mark.slow
def test_what_does_not_fit_into_memory_is_not_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "available_mb", lambda: -1.0)
    assert main(["--storage", f"sqlite:///{tmp_path / 'a.db'}", "--trials", "20", "--workers", "2"]) == 0
    assert "| sqlite | 20 | 2 | not run: 0 GB needed, -0 GB free |" in capsys.readouterr().out


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL, reason="no server given")
def test_sixty_four_workers_on_postgresql_lose_nothing(emptied_postgresql, capsys):
    arguments = ["--storage", emptied_postgresql, "--trials", "10", "--workers", "64", "--run", "128"]
    assert main(arguments) == 0
    ((*start, lost_trials),) = rows(capsys.readouterr().out)
    assert (start[:3], lost_trials) == (["postgresql", "10", "64"], "nothing")


def test_the_table_of_the_readme_is_that_of_the_command():
    text = (Path(measure.__file__).parents[1] / "workers" / "README.md").read_text()
    (table,) = re.findall(rf"{re.escape(HEADER.strip())}\n((?:\|.*\n)+)", text)
    found = rows(f"{HEADER}\n{table}")
    assert {storage for storage, *_ in found} == {"sqlite", "postgresql", "grpc"}
    assert len(found) >= 9


def test_decisions_are_those_of_a_run_by_default():
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    for group in ("sampler", "pruner"):
        (chosen,) = (option[group] for option in defaults if group in option)
        assert _parser().get_default(group) == chosen


def running(group):
    """The processes of a group that have not ended."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(its_group) == group and state != "Z":
            yield int(path.parent.name)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no list of processes")
def test_its_workers_end_with_the_command(tmp_path):
    file, root = tmp_path / "a.db", Path(__file__).parents[1]
    command = [sys.executable, "-m", "search.load", "--storage", f"sqlite:///{file}", "--trials", "20"]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--run", "100000"],
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    ends = time.monotonic() + 120

    def wait_until(condition):
        while not condition():
            assert time.monotonic() < ends
            time.sleep(0.05)

    def trials():
        with closing(sqlite3.connect(file)) as database, suppress(sqlite3.OperationalError):  # no tables yet
            return database.execute("SELECT count(*) FROM trials").fetchone()[0]
        return 0

    try:
        wait_until(lambda: trials() > 24)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGINT
        wait_until(lambda: not list(running(process.pid)))
    finally:
        for left in running(process.pid):
            os.kill(left, signal.SIGKILL)
