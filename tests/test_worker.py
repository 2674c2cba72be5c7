import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages._heartbeat import HeartbeatThread
from optuna.trial import TrialState
from tiny_task import OBJECTIVES, TREE, FirstToken, Reports, run_trials, tiny_search, tiny_study

from search.pruning import Pruner
from search.samplers.surrogate import SurrogateSampler
from search.study.interrupts import Stopped
from search.study.records import Stop, front
from search.study.store import TrialStore
from search.worker import RepeatedFailureError, work
from spaces.architecture import key

# Tests use ask and tell, without the heartbeats of Study.optimize.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")


class StopsAt(Pruner):
    """Stops every trial after an epoch, or before training at epoch 0."""

    def __init__(self, epoch):
        self.epoch = epoch

    def decide(self, row, epoch, history):
        return Stop(f"enough after {self.epoch}", epoch) if epoch == self.epoch else None


def run(study, search, n_trials=4, ended=None, reporter=None):
    return run_trials(study, search, n_trials, ended=ended or (lambda trial: None), reporter=reporter)


@pytest.fixture
def study(tmp_path):
    return tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")


@pytest.mark.slow
def test_n_trials_is_the_total_of_the_study(study):
    ended = []
    assert len(run(study, tiny_search(), 3, ended.append)) == 3
    assert len(run(study, tiny_search(), 3, ended.append)) == 3
    assert len(run(study, tiny_search(), 5, ended.append)) == 5
    assert [trial.number for trial in ended] == [0, 1, 2, 3, 4]


def test_a_complete_trial_has_a_curve_costs_and_values(study):
    search = tiny_search()
    for trial, frozen in zip(run(study, search), study.trials, strict=True):
        assert trial.state == "complete"
        assert [epoch for epoch, _ in trial.curve] == [1, 2, 3]
        assert trial.metric == trial.curve[-1][1]
        assert set(trial.costs) == {"latency_ms", "parameters", "flops", "memory_mb", "file_mb"}
        assert frozen.values == [trial.metric, trial.costs["latency_ms"]]
        assert min(trial.training_s, trial.latency_s) > 0
        assert "accuracy" in trial.test_metrics
    assert front(TrialStore(study).records(), search.objectives)


def test_progress_is_reported_at_the_start_before_training_and_after_each_epoch(study):
    reporter = Reports()
    run(study, tiny_search(), 1, reporter=reporter)
    assert reporter.calls == [("progress", 0, epoch) for epoch in (0, 0, 1, 2, 3)]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_architectures_and_results(tmp_path):
    def once(name, seed):
        fresh = tiny_study(f"sqlite:///{tmp_path / name}", seed=seed)
        return [(trial.architecture, trial.curve) for trial in run(fresh, tiny_search(seed=seed))]

    assert once("a.db", 0) == once("b.db", 0)
    assert once("c.db", 1) != once("b.db", 0)


@pytest.mark.parametrize("epoch", [0, *(pytest.param(epoch, marks=pytest.mark.slow) for epoch in (1, 2))])
def test_a_stopped_trial_is_pruned_with_its_reason_and_spends_no_more_epochs(study, epoch):
    for trial in run(study, tiny_search(pruner=StopsAt(epoch)), 2):
        assert (trial.state, trial.reason, len(trial.curve)) == ("pruned", f"enough after {epoch}", epoch)
        assert trial.costs["latency_ms"] > 0


@pytest.mark.slow
def test_a_trial_over_a_limit_is_pruned_before_training(study):
    cheap, expensive = sorted(trial.costs["latency_ms"] for trial in run(study, tiny_search(), 6))[::5]
    assert cheap < expensive
    limited = tiny_study(study._storage._backend.engine.url.render_as_string(), name="limited")
    trials = run(limited, tiny_search(limits={"latency_ms": cheap, "flops": None}), 6)
    for trial in trials:
        over = trial.costs["latency_ms"] > cheap
        assert (trial.state == "pruned") == over
        assert not over or (not trial.curve and "is over the limit" in trial.reason)
    assert {trial.state for trial in trials} == {"complete", "pruned"}
    assert all(frozen.constraints for frozen in limited.trials)


ONE_POINT = {
    "attention": {"softmax": TREE["attention"]["softmax"]},
    "model": {**TREE["model"], "width": 4},
    "train": {**TREE["train"], "lr": 0.01},
}


def test_no_architecture_is_trained_twice_and_an_exhausted_space_ends_the_run(study):
    ended = []
    first = run(study, tiny_search(ONE_POINT), 3, ended.append)
    assert [trial.number for trial in first] == [trial.number for trial in ended] == [0]
    states = [record.state for record in TrialStore(study).all_records().values()]
    assert all(state == "duplicate" for state in states[1:])
    assert all(frozen.values == study.trials[0].values for frozen in study.trials[1:])  # told to the sampler


@pytest.mark.slow
def test_after_a_duplicate_sample_an_unseen_architecture_is_started(study):
    tree = {**TREE, "train": {**TREE["train"], "lr": 0.01}}  # 6 architectures
    trials = run(study, tiny_search(tree), 9)
    assert len({key(trial.architecture) for trial in trials}) == len(trials) == 6


@pytest.mark.slow
def test_equal_networks_with_different_training_settings_share_their_costs(study, monkeypatch):
    measured = []
    search = tiny_search({**ONE_POINT, "train": TREE["train"]})
    measure = search.cost_model.meter.measure_all
    monkeypatch.setattr(search.cost_model.meter, "measure_all", lambda *nets: measured.append(nets) or measure(*nets))
    trials = run(study, search, 3)
    assert len({trial.architecture["train"]["lr"] for trial in trials}) == 3
    assert len({trial.costs["latency_ms"] for trial in trials}) == 1
    assert len(measured) == 1


@pytest.mark.slow
def test_equal_networks_are_measured_once_per_host(study):
    here = tiny_search({**ONE_POINT, "train": TREE["train"]})
    there = replace(here, cost_model=replace(here.cost_model, host="another"))
    run(study, here, 1)
    trials = run(study, there, 3)
    assert [trial.timing.host for trial in trials] == [here.cost_model.host, "another", "another"]
    assert [trial.latency_s > 0 for trial in trials] == [True, True, False]


@pytest.mark.slow
def test_costs_are_stored_before_the_timing_that_lets_other_workers_take_them_over(study, monkeypatch):
    written = []
    write = optuna.Trial.set_user_attr
    monkeypatch.setattr(
        optuna.Trial, "set_user_attr", lambda self, key, value: (written.append(key), write(self, key, value))
    )
    run(study, tiny_search({**ONE_POINT, "train": TREE["train"]}), 2)  # the second trial takes over the costs
    assert [key for key in written if key in ("costs", "timing")] == ["costs", "timing"] * 2


class PausesOnce(Pruner):
    """Pauses every trial after its first epoch; resumes the latest one when no new trial may be started."""

    pauses = True

    def decide(self, row, epoch, history):
        return Stop("paused by the test", epoch) if epoch == 1 else None

    def resumes(self, history, *, last):
        paused = history.numbers[history.paused]
        return int(paused.max()) if last and len(paused) else None


@pytest.mark.slow
def test_a_resumed_trial_has_the_same_curve_as_an_uninterrupted_one(study, tmp_path):
    url = study._storage._backend.engine.url.render_as_string()
    uninterrupted = run(tiny_study(url, name="uninterrupted"), tiny_search(), 3)
    ended = []
    trials = run(study, tiny_search(pruner=PausesOnce(), checkpoints=tmp_path / "waiting"), 3, ended.append)
    assert [trial.state for trial in ended] == ["paused"] * 3 + ["complete"] * 3
    assert [trial.number for trial in ended] == [0, 1, 2, 2, 1, 0]  # the latest was resumed first
    assert {key(trial.architecture): trial.curve for trial in trials} == {
        key(trial.architecture): trial.curve for trial in uninterrupted
    }
    assert all(len(trial.cpu_seconds) == 3 for trial in trials)
    assert not list((tmp_path / "waiting").rglob("*.pt"))


@pytest.mark.slow
def test_a_resumed_trial_keeps_its_costs(study, tmp_path):
    ended = []
    run(study, tiny_search(pruner=PausesOnce(), checkpoints=tmp_path / "waiting"), 1, ended.append)
    paused, resumed = ended
    assert (resumed.number, resumed.costs, resumed.timings) == (paused.number, paused.costs, paused.timings)
    assert paused.latency_s == resumed.latency_s > 0, "it is not measured again"
    assert 0 < paused.training_s < resumed.training_s, "the sum of both"


@pytest.mark.slow
@pytest.mark.parametrize("pauses", [True, False])
def test_a_trial_is_not_stopped_after_its_last_epoch(study, tmp_path, pauses):
    pruner = StopsAt(TREE["train"]["epochs"])
    pruner.pauses = pauses
    trials = run(study, tiny_search(pruner=pruner, checkpoints=tmp_path), 3)
    assert [trial.state for trial in trials] == ["complete"] * 3


@pytest.mark.slow
def test_a_requeued_paused_trial_cannot_be_resumed_again(study, tmp_path):
    pruner = PausesOnce()
    pruner.resumes = lambda history, last: None
    run(study, tiny_search(pruner=pruner, checkpoints=tmp_path), 2)
    store = TrialStore(study)
    assert store.history(OBJECTIVES).paused.tolist() == [True, True]
    store.resume(1)
    assert store.record(1).state == "replaced"
    assert [record.number for record in store.records()] == [0]
    assert store.history(OBJECTIVES).paused.tolist() == [True, False]
    assert TrialStore(study).history(OBJECTIVES).numbers.tolist() == [0, 1], "as in the worker that saw it paused"


@pytest.mark.slow
def test_a_paused_trial_without_checkpoint_is_trained_from_scratch(study, tmp_path):
    class Lost(PausesOnce):
        def resumes(self, history, *, last):
            for file in tmp_path.rglob("*.pt"):
                file.unlink()
            return super().resumes(history, last=last)

        def decide(self, row, epoch, history):
            return super().decide(row, epoch, history) if len(study.trials) == 1 else None

    (trial,) = run(study, tiny_search(pruner=Lost(), checkpoints=tmp_path / "waiting"), 1)
    assert (trial.state, [epoch for epoch, _ in trial.curve]) == ("complete", [1, 2, 3])


@pytest.mark.slow
def test_the_surrogate_sampler_chooses_between_new_and_paused_trials(study, tmp_path):
    search = tiny_search(sampler=SurrogateSampler(candidates=8), pruner=PausesOnce(), checkpoints=tmp_path / "waiting")
    trials = run(study, search, 6)
    assert {trial.state for trial in trials} == {"complete"}
    assert len({key(trial.architecture) for trial in trials}) == 6


@pytest.mark.slow
def test_after_a_failed_trial_the_run_continues(study):
    class SometimesBroken(FirstToken):
        def loss(self, logits, batch):
            if len(TrialStore(study).records()) == 2:
                raise RuntimeError("test error")
            return super().loss(logits, batch)

    trials = run(study, tiny_search(task=SometimesBroken()), 3)
    assert [trial.state for trial in trials] == ["complete", "failed", "complete"]
    assert trials[1].reason == "RuntimeError: test error"
    assert "test error" in study.trials[1].user_attrs["traceback"]


@pytest.mark.slow
def test_repeated_failures_end_the_run(study):
    class Broken(FirstToken):
        def loss(self, logits, batch):
            raise RuntimeError("test error")

    with pytest.raises(RepeatedFailureError, match="3 trials in a row failed; the last one: RuntimeError: test error"):
        run(study, tiny_search(task=Broken()), 9)


@pytest.mark.slow
def test_failures_that_are_not_in_a_row_do_not_end_the_run(study):
    class SometimesBroken(FirstToken):
        def loss(self, logits, batch):
            if len(TrialStore(study).records()) % 2:
                raise RuntimeError("test error")
            return super().loss(logits, batch)

    tree = {**TREE, "train": {**TREE["train"], "epochs": 1}}
    trials = run(study, tiny_search(tree, task=SometimesBroken()), 5)
    assert [trial.state for trial in trials] == ["failed", "complete", "failed", "complete", "failed"]


class Interrupting(Reports):
    """Sends this process a signal at an epoch, once."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def progress(self, trial):
        if trial.epochs == 2 and self.number:
            number, self.number = self.number, None
            os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_requeues_the_running_trial(study, number):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stop:
        run(study, tiny_search(), 2, reporter=Interrupting(number))
    assert stop.value.signal == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert not [thread for thread in threading.enumerate() if thread.name == "training"]
    assert TrialStore(study).records() == []
    trials = run(study, tiny_search(), 2)
    assert [trial.number for trial in trials] == [0, 2]
    assert study.trials[1].params == study.trials[0].params


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "states"), [("start", ["FAIL", "WAITING"]), ("join", ["COMPLETE"])])
def test_a_signal_while_heartbeats_start_or_end_leaves_no_thread_that_sends_them(study, monkeypatch, moment, states):
    before = getattr(HeartbeatThread, moment)

    def interrupted(self):
        before(self)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(HeartbeatThread, moment, interrupted)
    others = set(threading.enumerate())  # of earlier tests
    with pytest.raises(Stopped):
        run(study, tiny_search(), 2)
    assert [thread for thread in threading.enumerate() if not thread.daemon and thread not in others] == []
    assert [trial.state.name for trial in study.trials] == states


def test_a_trial_beyond_n_trials_is_over_quota(study, monkeypatch):
    """Another worker starts a trial between counting the trials and asking for one."""
    other = tiny_study(study._storage._backend.engine.url.render_as_string())
    ask = optuna.Study.ask

    def late(self, *args):
        if self is study:
            other.tell(ask(other), [0.9, 1.0])
        return ask(self, *args)

    monkeypatch.setattr(optuna.Study, "ask", late)
    assert [trial.number for trial in run(study, tiny_search(), 1)] == [0]
    assert TrialStore(study).record(1).state == "over_quota"


def test_a_worker_waits_for_running_trials_of_other_workers(study, monkeypatch):
    other = tiny_study(study._storage._backend.engine.url.render_as_string())
    theirs = other.ask()
    monkeypatch.setattr(time, "sleep", lambda _: other.tell(theirs, [0.5, 1.0]))
    reporter = Reports()
    assert len(run(study, tiny_search(), 1, reporter=reporter)) == 1
    assert ("waiting", 1) in reporter.calls


@pytest.mark.slow
def test_a_trial_that_another_worker_failed_is_abandoned(study):
    class FailsTrial(Reports):
        def progress(self, trial):
            if trial.epochs and len(study.trials) == 1:
                study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.FAIL)

    trials = run(study, tiny_search(), 2, reporter=FailsTrial())
    assert [(trial.number, trial.state) for trial in trials] == [(0, "complete"), (2, "complete")]


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_run_by_another_one(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = tiny_study(url, heartbeat_s=1, grace_s=2)
    endless = (
        "import sys, threading; from tiny_task import *\n"
        "class Endless(Reports):\n"
        "    def progress(self, trial): trial.epochs and (print('training', flush=True), threading.Event().wait())\n"
        "store = TrialStore(tiny_study(sys.argv[1], heartbeat_s=1, grace_s=2))\n"
        "work(store, tiny_search(), 1, Endless(), print, grace_s=2)\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    worker = subprocess.Popen(
        [sys.executable, "-c", endless, url], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert worker.stdout.readline() == b"training\n"
    worker.kill()
    worker.wait()
    worker.stdout.close()
    work(TrialStore(study), tiny_search(), 1, Reports(), lambda trial: None, grace_s=2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[0].params == study.trials[1].params
