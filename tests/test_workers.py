"""Further workers of a run: how many, what they print, and how they end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch
from test_run import QUICK, command  # noqa: F401 - a fixture
from tiny_task import TREE, opened, tiny_config

from search.assemble import build_search
from search.budget.deadline import Deadline
from search.training.learner import LightningLearner
from search.workers import processes
from search.workers.processes import MAX_AUTO, WorkerProcesses, worker_count, worker_devices
from spaces.space import Space


@pytest.mark.parametrize(
    ("settings", "cores", "expected"),
    [
        ({}, 2, 1),
        ({"budget": "10min"}, 2, 2),
        ({"budget": "10min"}, 64, MAX_AUTO),
        ({"budget": "10min", "device": "cpu"}, 2, 2),
        ({"budget": "10min", "device": "cuda:1"}, 2, 1),
        ({"workers": 3}, 2, 3),
        ({"workers": 1, "budget": "10min"}, 2, 1),
    ],
)
def test_workers_by_default(monkeypatch, settings, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = {"workers": "auto", "budget": None, "device": "auto"} | settings
    assert worker_count(config) == expected


@pytest.mark.parametrize(
    ("device", "count", "gpus", "expected"),
    [
        ("auto", 4, 2, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("cuda", 3, 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("auto", 2, 1, ["auto", "auto"]),
        ("auto", 2, 0, ["auto", "auto"]),
        ("cuda:1", 2, 4, ["cuda:1", "cuda:1"]),
        ("cpu", 2, 4, ["cpu", "cpu"]),
    ],
)
def test_gpus_are_dealt_out(monkeypatch, device, count, gpus, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert worker_devices(device, count) == expected
    if gpus and device in ("auto", "cuda"):
        for budget in ("10min", None):
            assert worker_count({"workers": "auto", "budget": budget, "device": device}) == gpus


def test_a_worker_gets_its_device(monkeypatch):
    start, echo = subprocess.Popen, "import json, sys; print(json.loads(sys.stdin.readline())['config']['device'])"
    monkeypatch.setattr(subprocess, "Popen", lambda _, **settings: start([sys.executable, "-c", echo], **settings))
    shown = []
    with WorkerProcesses({"budget": None, "device": "auto"}, ["cuda:1", "cuda:0"], Deadline(), shown.append) as others:
        others.finish()
    assert sorted(shown) == ["cuda:0", "cuda:1"]


def test_a_worker_that_fails_is_reported():
    shown = []
    with WorkerProcesses({"budget": None}, ["cpu"], Deadline(), shown.append) as others:
        others.finish()
    assert len(shown) == 1
    assert shown[0].startswith("a worker has failed: weights_mb: missing; it must be ")


SLEEPER = "import os, signal, sys, time; sys.stdin.readline(); print(os.getpid(), flush=True); sys.stdin.read()"


def wait_until(condition, seconds=30):
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    assert condition()


def test_a_killed_worker_is_replaced_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(processes, "MAX_RESTARTS", 2)
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **settings: start([sys.executable, "-c", SLEEPER], **settings))
    shown, killed = [], []
    with WorkerProcesses({"budget": None}, ["cpu"], Deadline(), shown.append) as others:
        for round_ in range(3):
            wait_until(lambda: len([line for line in shown if line.isdigit()]) == round_ + 1)  # noqa: B023
            killed.append(int([line for line in shown if line.isdigit()][-1]))
            os.kill(killed[-1], signal.SIGKILL)
        others.finish()
    assert len(set(killed)) == 3
    messages = [line for line in shown if not line.isdigit()]
    assert (
        messages[:2]
        == ["A worker was killed (SIGKILL, as the kernel does when memory runs out); another takes its place."] * 2
    )
    assert [line for line in messages if line.startswith("a worker has failed")] == messages[2:]
    assert len(messages) == 3


def test_workers_that_are_stopped_are_not_replaced(monkeypatch):
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **settings: start([sys.executable, "-c", SLEEPER], **settings))
    shown = []
    with WorkerProcesses({"budget": None}, ["cpu", "cpu"], Deadline(), shown.append):
        wait_until(lambda: len(shown) == 2)
    assert len(shown) == 2


def test_workers_that_have_not_ended_when_the_budget_is_used_up_are_stopped(monkeypatch):
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **settings: start([sys.executable, "-c", SLEEPER], **settings))
    shown, now = [], [0.0]
    with WorkerProcesses({"budget": "60s"}, ["cpu"], Deadline(60.0, clock=lambda: now[0]), shown.append) as others:
        wait_until(lambda: len(shown) == 1)
        now[0] = 61.0
        others.finish()
    assert shown[1:] == ["A worker is stopped, as the time budget is used up; the same command continues its trial."]


@pytest.mark.slow
def test_a_run_shares_its_trials_with_a_further_worker(command, monkeypatch):  # noqa: F811
    storage, train = f"sqlite:///{command.folder / 'paretoformer.db'}", LightningLearner.train

    def workers():
        trials = optuna.load_study(study_name="smoke-digits", storage=storage).trials
        return {trial.user_attrs["worker"] for trial in trials if "worker" in trial.user_attrs}

    def late(*given, **more):  # the first worker would be through before the other one has started
        wait_until(lambda: len(workers()) == 2, seconds=120)
        return train(*given, **more)

    monkeypatch.setattr(LightningLearner, "train", late)
    code, out, err = command("+space=smoke", *QUICK, "space.train.epochs=1", "n_trials=3", "workers=2")
    assert (code, err) == (0, "")
    assert "2 workers run trials side by side" in out
    lines = [line for line in out.splitlines() if re.match(r"[* ] +\d+ ", line)]
    assert len(lines) == 3  # those of both workers
    assert len(workers()) == 2
    assert out.count("The run ends") == out.count("The front: ") == 1
    assert "the first of 2 workers" in out


@pytest.mark.slow
def test_a_worker_requeues_its_trial_when_the_run_stops(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # of the task
    tree = {**TREE, "train": {**TREE["train"], "epochs": 100_000}}
    settings = {"n_trials": 9, "budget": None, "patience": None, "min_gain": None, "workers": 1, "scale": "auto"}
    config = tiny_config(tmp_path) | {"space": tree} | settings
    config["storage"] |= {"heartbeat_s": 10, "grace_s": 60}
    store, start = build_search(config, Space(tree), []).store, time.monotonic()
    opened.append(store.study._storage._backend)
    with WorkerProcesses(config, ["cpu"], Deadline(), print):
        while not any(record.curve for record in store.records()):
            assert time.monotonic() - start < 120, "no epoch was trained"
            time.sleep(0.2)
    assert [record.state for record in store.all_records().values()].count("running") == 0
    assert store.waiting()
