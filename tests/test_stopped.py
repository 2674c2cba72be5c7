"""Workers that are stopped while they train, as processes: by a signal, by two, and beyond the grace period."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import chaos
import pytest
from test_recipes import QUICK, environment, training, wait_until

from search.study.requeue import fail_stale
from search.study.storage import close_storage, load_study, open_read_only, open_storage
from search.study.store import TrialStore

NAME = "stopped"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell of processes"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader"),  # within MLflow
]


def state_of(number):
    """The letter of a process, of one that has ended Z or none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


@pytest.fixture
def run(tmp_path):
    """A run of two workers that train, the process id of the second one, and the URL of the study."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    endless = ["workers=2", "n_trials=4", "space.train.epochs=1000", f"study={NAME}", f"storage.url={url}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "search.run", *QUICK, *endless],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: len(training(url, NAME)) == 2, process, seconds=600)
        (further,) = training(url, NAME) - {process.pid}
        yield process, further, url
    finally:
        process.kill()
        process.communicate()


def stop(number, url):
    """Stop a process while it does not lock the file of the studies."""
    while True:
        os.kill(number, signal.SIGSTOP)
        wait_until(lambda: state_of(number) == "T")
        file = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=5.0)
        with contextlib.closing(file), contextlib.suppress(sqlite3.OperationalError):
            file.execute("BEGIN IMMEDIATE")
            return
        os.kill(number, signal.SIGCONT)


def check_all_requeued(url):
    """At once, as the processes have ended; no trial is lost or counts twice."""
    storage = open_storage(url=url)
    try:
        study = load_study(storage, NAME)
        fail_stale(study, grace_s=600)
        assert sorted(trial.state.name for trial in study.trials) == ["FAIL"] * 2 + ["WAITING"] * 2
        assert {str(record.state) for record in TrialStore(study).all_records().values()} == {"replaced"}
    finally:
        close_storage(storage)


def test_one_signal_ends_a_run_and_its_workers_and_requeues_their_trials(run):
    process, further, url = run
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert "it was interrupted (SIGINT); the running trial was requeued" in output
    assert "Traceback" not in output
    assert state_of(further) in ("", "Z")
    check_all_requeued(url)


def test_a_second_signal_ends_a_run_that_waits_for_its_workers(run):
    """One of them does not react; it ends itself as soon as it can."""
    process, further, url = run
    stop(further, url)
    try:
        process.send_signal(signal.SIGINT)
        wait_until(lambda: process.pid not in training(url, NAME), seconds=120)  # it has requeued its own trial
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
        assert state_of(further) == "T", "the run has waited for it, and killed it"
    finally:
        os.kill(further, signal.SIGCONT)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in output
    wait_until(lambda: state_of(further) in ("", "Z"), seconds=120)
    check_all_requeued(url)


class StopsItself(chaos.Slow):
    """Stops its process in the third epoch, once; no transaction is open then, which would lock the database."""

    def batches(self, split, batch_size, *, shuffle=None):
        begun = Path("epochs").exists() and Path("epochs").stat().st_size >= 2
        if split == "train" and shuffle is not None and begun and not Path("stopped").exists():
            Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().batches(split, batch_size, shuffle=shuffle)


def test_the_trial_of_a_worker_that_is_stopped_beyond_the_grace_period_counts_once(tmp_path, url):
    config = chaos.configuration(tmp_path, url, 3, epoch_s=0.05)
    config["task"] = {"_target_": f"{__name__}.StopsItself", "epoch_s": 0.05}
    rare = {**config, "storage": {**config["storage"], "heartbeat_s": 600, "grace_s": 6000}}  # none while it stops
    workers = chaos.Chaos(rare, tmp_path, 1, seed=0, max_tries=3)
    late = workers.start()
    try:
        wait_until(lambda: state_of(late.pid) == "T", seconds=120)
        workers.config = config
        other = workers.start()
        other.join(300)
        assert other.exitcode == 0
        chaos.check(config, tmp_path, may_cost=0)
    finally:
        os.kill(late.pid, signal.SIGCONT)
    late.join(300)
    assert late.exitcode == 0
    assert "Traceback" not in (tmp_path / "worker-1.log").read_text()
    chaos.check(config, tmp_path, may_cost=1)
    with open_read_only(url) as storage:
        states = [trial.state.name for trial in load_study(storage, "chaos").trials]
    assert states.count("FAIL") == 1
