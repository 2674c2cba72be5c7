"""The pruners in a study that knows nothing of this project."""

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
from search.pruning.optuna_study import Watch
from search.study.records import Objectives, Record

ROOT = Path(__file__).parents[1]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def watched(pruner=None, study=None, **settings):
    study = study or optuna.create_study(directions=["maximize", "minimize"])
    about = {"metric": "accuracy", "costs": ["ms"], "chance": 0.0, "best": 1.0, "ceilings": [9.0]}
    return Watch(study, pruner or IEpoch(epoch=2), **about | settings)


def run(watch, metrics, *, tell=True, **costs):
    """One trial by ask and tell: the step after which it was stopped, or None."""
    trial = watch.study.ask()
    watch.known(trial, **costs or {"ms": 1.0})
    for step, metric in enumerate(metrics, start=1):
        watch.report(trial, {watch.objectives.metric: metric}, step=step)
        if watch.should_stop(trial):
            watch.study.tell(trial, state=TrialState.PRUNED)
            return step
    if tell:
        watch.study.tell(trial, [metrics[-1], *costs.values()])
    return None


def test_a_trial_behind_another_is_stopped_and_says_why():
    watch = watched()
    assert run(watch, [0.1, 0.5, 0.6], ms=2.0) is None
    assert run(watch, [0.9, 0.4, 0.6], ms=2.0) == 2
    assert run(watch, [0.0, 0.1, 0.2], ms=1.9) is None, "cheaper"
    assert run(watch, [0.0, 0.6, 0.2], ms=9.0) is None, "better"
    trial = watch.study.get_trials()[1]
    assert trial.user_attrs["stop"]["reason"] == "epoch 2: accuracy 0.4; better at no higher cost: trial 0"
    assert list(trial.user_attrs["stop"]["beaten_by"]) == [0]
    assert [tuple(entry) for entry in trial.user_attrs["curve"]] == [(1, 0.9), (2, 0.4)]
    assert not trial.intermediate_values


def test_a_running_trial_counts_at_once_and_a_later_state_of_it_too():
    watch = watched()
    ahead, behind = watch.study.ask(), watch.study.ask()
    for trial in (ahead, behind):
        watch.known(trial, ms=1.0)
        watch.report(trial, {"accuracy": 0.5}, step=1)
    assert not watch.should_stop(behind)
    watch.report(ahead, {"accuracy": 0.9}, step=2)
    watch.report(behind, {"accuracy": 0.5}, step=2)
    assert watch.should_stop(behind)
    watch.report(ahead, {"accuracy": 0.4}, step=2)
    assert not watch.should_stop(behind), "what is reported again replaces what was said"


def test_a_loss_is_minimized():
    watch = watched(
        study=optuna.create_study(directions=["minimize", "minimize", "minimize"]),
        metric="loss",
        costs=["ms", "mb"],
        chance=5.0,
        best=0.0,
        ceilings=[9.0, 9.0],
    )
    assert watch.objectives.direction == "minimize"
    assert run(watch, [3.0, 2.0, 1.0], ms=2.0, mb=2.0) is None
    assert run(watch, [3.0, 2.5, 1.0], ms=2.0, mb=2.0) == 2
    assert run(watch, [3.0, 2.5, 1.0], ms=2.0, mb=1.0) is None
    assert run(watch, [3.0, 1.5, 1.0], ms=2.0, mb=2.0) is None


def test_before_the_first_step_the_costs_alone_decide():
    watch = watched(GainRate(patience=0.1, first=9, target=0.9))
    run(watch, [0.95], ms=2.0)
    for ms, stopped in ((1.9, False), (2.0, True)):
        trial = watch.study.ask()
        watch.known(trial, ms=ms)
        assert watch.should_stop(trial) == stopped


@pytest.mark.parametrize("metric", [NAN, INF])
def test_a_metric_that_is_lost_stops_a_trial(metric):
    assert run(watched(NoPruner()), [0.5, metric]) == 2


def test_trials_that_ended_without_a_watch_count_by_their_values():
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (0.95, trial.suggest_float("ms", 2.0, 2.0)), n_trials=1)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.enqueue_trial({})
    watch = watched(GainRate(patience=0.1, first=9, target=0.9), study)
    trial = study.ask()
    watch.known(trial, ms=3.0)
    assert watch.should_stop(trial)


def test_several_workers_share_what_they_learn_in_a_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    studies = [
        optuna.create_study(storage=url, study_name="s", directions=["maximize", "minimize"], load_if_exists=True)
        for _ in range(2)
    ]
    first, second = (watched(study=study) for study in studies)
    assert run(first, [0.1, 0.5, 0.6], tell=False, ms=1.0) is None
    assert run(second, [0.1, 0.4, 0.6], ms=1.0) == 2
    assert run(second, [0.1, 0.6, 0.7], ms=1.0) is None
    assert run(first, [0.1, 0.5, 0.6], ms=1.0) == 2
    for study in studies:
        storage = study._storage._backend
        storage.remove_session()
        storage.engine.dispose()


def test_threads_share_a_watch_and_tpe_survives_pruned_trials():
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4)
    )
    watch = watched(MoAsha(eta=2, min_epochs=1), study)

    def objective(trial):
        ms = trial.suggest_float("ms", 0.1, 9.0)
        watch.known(trial, ms=ms)
        for step in range(1, 5):
            watch.report(trial, {"accuracy": trial.suggest_float("gain", 0.0, 0.1) * step}, step=step)
            if watch.should_stop(trial):
                raise optuna.TrialPruned
        return 0.5, ms

    with ThreadPoolExecutor(3) as threads:
        for worker in [threads.submit(study.optimize, objective, n_trials=5) for _ in range(3)]:
            worker.result()
    assert {trial.state for trial in study.get_trials()} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_retried_trial_begins_anew():
    watch = watched()
    trial = watch.study.ask()
    trial.set_user_attr("curve", [(1, 0.9), (2, 0.9)])  # what Optuna copies from the one that died
    watch.known(trial, ms=1.0)
    assert trial.user_attrs["curve"] == []


class Keeps(NoPruner):
    """Remembers what it was asked."""

    def judge(self, row, epoch, history):
        self.seen = (row, epoch, history.objectives, history.records())


def test_the_rule_is_asked_about_the_record_among_the_others():
    watch = watched(Keeps())
    run(watch, [0.5], ms=3)
    run(watch, [0.25], tell=False, ms=4)
    row, epoch, objectives, records = watch.pruner.seen
    assert objectives == Objectives("accuracy", "maximize", ("ms",), 0.0, 1.0, (9.0,))
    assert records[row] == Record(1, "running", {"ms": 4.0}, [(1, 0.25)])
    assert epoch == 1
    assert [(r.number, r.state, r.metric) for r in records if r is not records[row]] == [(0, "complete", 0.5)]


UNKNOWN = "trial 0: its costs are not known; call known(trial, ms=...) first"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda w, t: w.report(t, {"accuracy": 0.1}, step=1), UNKNOWN),
        (lambda w, t: w.should_stop(t), UNKNOWN),
        (lambda w, t: w.report(t, {"acuracy": 0.1}, step=1), "trial 0: acuracy at step 1: report accuracy alone"),
        (lambda w, t: w.report(t, {}, step=1), "trial 0: none at step 1: report accuracy alone"),
        (lambda w, t: w.report(t, {"accuracy": 0.1}, step=0), "step=0: it must be a whole number from 1"),
        (lambda w, t: w.known(t), "trial 0: costs none: they must be ms"),
        (lambda w, t: w.known(t, ms=1.0, mb=2.0), "trial 0: costs ms, mb: they must be ms"),
        (lambda w, t: w.known(t, ms=NAN), "trial 0: ms=nan: it must be a finite number"),
    ],
)
def test_what_a_trial_says_wrongly_is_refused(act, message):
    watch = watched()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        act(watch, watch.study.ask())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"costs": []}, "metric='accuracy', costs=[]: they must be different names, at least one cost"),
        ({"costs": "ms"}, "metric='accuracy', costs='ms': they must be different names, at least one cost"),
        ({"metric": "ms"}, "metric='ms', costs=['ms']: they must be different names, at least one cost"),
        ({"ceilings": []}, "ceilings=[]: there must be a number above 0 for each of ms"),
        ({"ceilings": [0.0]}, "ceilings=[0.0]: there must be a number above 0 for each of ms"),
        ({"best": -1.0}, "chance=0.0, best=-1.0: to maximize accuracy, best must be better than chance"),
        ({"best": INF}, "chance=0.0, best=inf: to maximize accuracy, best must be better than chance"),
        (
            {"costs": ["ms", "mb"], "ceilings": [1, 1]},
            "the study's directions are maximize, minimize: they must be that of accuracy, then minimize for ms, mb",
        ),
        (
            {"study": optuna.create_study(directions=["maximize", "maximize"])},
            "the study's directions are maximize, maximize: they must be that of accuracy, then minimize for ms",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        watched(**settings)


def test_the_snippet_of_the_readme_runs_and_stops_trials():
    (snippet,) = re.findall(
        r"```python\n(.*?from search\.pruning\.optuna_study.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    states = [trial.state for trial in names["study"].get_trials()]
    assert len(states) == 40
    assert 1 <= states.count(TrialState.COMPLETE) < 30
    assert all(
        each.user_attrs["stop"]["reason"] for each in names["study"].get_trials() if each.state == TrialState.PRUNED
    )


def test_it_needs_neither_torch_nor_lightning():
    code = (
        "import sys, search.pruning.optuna_study, search.pruning.gain_rate; "
        "print({'torch', 'lightning', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
