"""The pruners in a plain multi-objective Optuna study."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.pruning.gain_rate import GainRate
from search.pruning.i_epoch import IEpoch
from search.pruning.moasha import MoAsha
from search.pruning.none import NoPruner
from search.pruning.optuna_study import MultiObjectivePruning
from search.study.records import Objectives, Record

ROOT = Path(__file__).parents[1]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def pruning_in(pruner=None, study=None, **settings):
    study = study or optuna.create_study(directions=["maximize", "minimize"])
    about = {"metric": "accuracy", "costs": ["ms"], "chance": 0.0, "best": 1.0, "ceilings": [9.0]}
    return MultiObjectivePruning(study, pruner or IEpoch(epoch=2), **about | settings)


def run(pruning, metrics, *, tell=True, **costs):
    """Run one trial by ask and tell; return the step after which it was stopped, or None."""
    trial = pruning.study.ask()
    pruning.set_costs(trial, **costs or {"ms": 1.0})
    for step, metric in enumerate(metrics, start=1):
        pruning.report(trial, metric, step)
        if pruning.should_prune(trial):
            pruning.study.tell(trial, state=TrialState.PRUNED)
            return step
    if tell:
        pruning.study.tell(trial, [metrics[-1], *costs.values()])
    return None


def test_a_dominated_trial_is_pruned_and_stores_the_reason():
    pruning = pruning_in()
    assert run(pruning, [0.1, 0.5, 0.6], ms=2.0) is None
    assert run(pruning, [0.9, 0.4, 0.6], ms=2.0) == 2
    assert run(pruning, [0.0, 0.1, 0.2], ms=1.9) is None, "cheaper"
    assert run(pruning, [0.0, 0.6, 0.2], ms=9.0) is None, "better"
    trial = pruning.study.get_trials()[1]
    assert trial.user_attrs["stop"]["reason"] == "epoch 2: accuracy 0.4; better at no higher cost: trial 0"
    assert list(trial.user_attrs["stop"]["beaten_by"]) == [0]
    assert [tuple(entry) for entry in trial.user_attrs["curve"]] == [(1, 0.9), (2, 0.4)]
    assert not trial.intermediate_values


def test_running_trials_are_compared_by_their_latest_report():
    pruning = pruning_in()
    ahead, behind = pruning.study.ask(), pruning.study.ask()
    for trial in (ahead, behind):
        pruning.set_costs(trial, ms=1.0)
        pruning.report(trial, 0.5, step=1)
    assert not pruning.should_prune(behind)
    pruning.report(ahead, 0.9, step=2)
    pruning.report(behind, 0.5, step=2)
    assert pruning.should_prune(behind)
    pruning.report(ahead, 0.4, step=2)
    assert not pruning.should_prune(behind), "a repeated step replaces the earlier value"


def test_a_metric_can_be_minimized():
    pruning = pruning_in(
        study=optuna.create_study(directions=["minimize", "minimize", "minimize"]),
        metric="loss",
        costs=["ms", "mb"],
        chance=5.0,
        best=0.0,
        ceilings=[9.0, 9.0],
    )
    assert pruning.objectives.direction == "minimize"
    assert run(pruning, [3.0, 2.0, 1.0], ms=2.0, mb=2.0) is None
    assert run(pruning, [3.0, 2.5, 1.0], ms=2.0, mb=2.0) == 2
    assert run(pruning, [3.0, 2.5, 1.0], ms=2.0, mb=1.0) is None
    assert run(pruning, [3.0, 1.5, 1.0], ms=2.0, mb=2.0) is None


def test_before_the_first_step_a_trial_can_be_pruned_by_its_costs():
    pruning = pruning_in(GainRate(patience=0.1, first=9, target=0.9))
    run(pruning, [0.95], ms=2.0)
    for ms, stopped in ((1.9, False), (2.0, True)):
        trial = pruning.study.ask()
        pruning.set_costs(trial, ms=ms)
        assert pruning.should_prune(trial) == stopped


@pytest.mark.parametrize("metric", [NAN, INF])
def test_a_non_finite_metric_prunes_a_trial(metric):
    assert run(pruning_in(NoPruner()), [0.5, metric]) == 2


def test_trials_that_never_set_costs_are_compared_by_their_values():
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (0.95, trial.suggest_float("ms", 2.0, 2.0)), n_trials=1)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.enqueue_trial({})
    pruning = pruning_in(GainRate(patience=0.1, first=9, target=0.9), study)
    trial = study.ask()
    pruning.set_costs(trial, ms=3.0)
    assert pruning.should_prune(trial)


def test_workers_share_curves_through_a_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    studies = [
        optuna.create_study(storage=url, study_name="s", directions=["maximize", "minimize"], load_if_exists=True)
        for _ in range(2)
    ]
    first, second = (pruning_in(study=study) for study in studies)
    assert run(first, [0.1, 0.5, 0.6], tell=False, ms=1.0) is None
    assert run(second, [0.1, 0.4, 0.6], ms=1.0) == 2
    assert run(second, [0.1, 0.6, 0.7], ms=1.0) is None
    assert run(first, [0.1, 0.5, 0.6], ms=1.0) == 2
    for study in studies:
        storage = study._storage._backend
        storage.remove_session()
        storage.engine.dispose()


def test_threads_can_share_one_instance_and_tpe_accepts_pruned_trials():
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4)
    )
    pruning = pruning_in(MoAsha(eta=2, min_epochs=1), study)

    def objective(trial):
        ms = trial.suggest_float("ms", 0.1, 9.0)
        pruning.set_costs(trial, ms=ms)
        for step in range(1, 5):
            pruning.report(trial, trial.suggest_float("gain", 0.0, 0.1) * step, step)
            if pruning.should_prune(trial):
                raise optuna.TrialPruned
        return 0.5, ms

    with ThreadPoolExecutor(3) as threads:
        for worker in [threads.submit(study.optimize, objective, n_trials=5) for _ in range(3)]:
            worker.result()
    assert {trial.state for trial in study.get_trials()} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_retried_trial_starts_with_an_empty_curve():
    pruning = pruning_in()
    trial = pruning.study.ask()
    trial.set_user_attr("curve", [(1, 0.9), (2, 0.9)])  # what Optuna copies from the failed trial
    pruning.set_costs(trial, ms=1.0)
    assert trial.user_attrs["curve"] == []


class Spy(NoPruner):
    """Stores the arguments of the last decision."""

    def decide(self, row, epoch, history):
        self.seen = (row, epoch, history.objectives, history.records())


def test_the_rule_gets_the_trial_and_the_history():
    pruning = pruning_in(Spy())
    run(pruning, [0.5], ms=3)
    run(pruning, [0.25], tell=False, ms=4)
    row, epoch, objectives, records = pruning.pruner.seen
    assert objectives == Objectives("accuracy", "maximize", ("ms",), 0.0, 1.0, (9.0,))
    assert records[row] == Record(1, "running", {"ms": 4.0}, [(1, 0.25)], architecture={"model": {}})
    assert epoch == 1
    assert [(r.number, r.state, r.metric) for r in records if r is not records[row]] == [(0, "complete", 0.5)]


NOT_SET = "trial 0: its costs are not set; call set_costs(trial, ms=...) first"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda w, t: w.report(t, 0.1, step=1), NOT_SET),
        (lambda w, t: w.should_prune(t), NOT_SET),
        (lambda w, t: w.report(t, 0.1, step=0), "step=0: it must be a whole number from 1"),
        (lambda w, t: w.set_costs(t), "trial 0: costs none: they must be ms"),
        (lambda w, t: w.set_costs(t, ms=1.0, mb=2.0), "trial 0: costs ms, mb: they must be ms"),
        (lambda w, t: w.set_costs(t, ms=NAN), "trial 0: ms=nan: it must be a finite number"),
    ],
)
def test_invalid_costs_and_steps_are_rejected(act, message):
    pruning = pruning_in()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        act(pruning, pruning.study.ask())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"costs": []}, "metric='accuracy', costs=[]: they must be distinct names, with at least one cost"),
        ({"costs": "ms"}, "metric='accuracy', costs='ms': they must be distinct names, with at least one cost"),
        ({"metric": "ms"}, "metric='ms', costs=['ms']: they must be distinct names, with at least one cost"),
        ({"ceilings": []}, "ceilings=[]: they must be finite and above 0, one for each of ms"),
        ({"ceilings": [0.0]}, "ceilings=[0.0]: they must be finite and above 0, one for each of ms"),
        ({"best": -1.0}, "chance=0.0, best=-1.0: to maximize accuracy, best must be better than chance"),
        ({"best": INF}, "chance=0.0, best=inf: to maximize accuracy, best must be better than chance"),
        (
            {"costs": ["ms", "mb"], "ceilings": [1, 1]},
            "the study's directions are maximize, minimize: they must be that of accuracy, the only objective that "
            "is learned, then minimize for ms, mb",
        ),
        (
            {"study": optuna.create_study(directions=["maximize", "maximize"])},
            "the study's directions are maximize, maximize: they must be that of accuracy, the only objective that "
            "is learned, then minimize for ms",
        ),
    ],
)
def test_arguments_that_do_not_fit_the_study_are_rejected(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pruning_in(**settings)


def test_the_import_needs_neither_torch_nor_lightning():
    code = (
        "import sys, search.pruning.optuna_study, search.pruning.gain_rate; "
        "print({'torch', 'lightning', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
