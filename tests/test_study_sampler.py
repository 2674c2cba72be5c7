"""The surrogate in a plain multi-objective Optuna study, and trials that it pauses and resumes there."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from search.pruning import Pruner
from search.pruning.none import NoPruner
from search.pruning.optuna_study import MultiObjectivePruning
from search.samplers.candidates import Draw
from search.samplers.optuna_study import StudySampler, suggest
from search.study.records import Stop, front
from tests.test_plain import quiet  # noqa: F401

ROOT = Path(__file__).parents[1]
EPOCHS = 6


class PauseAtStep2(Pruner):
    """Pauses every other trial once, and finds that the paused ones are as good as complete ones."""

    pauses = True

    def decide(self, row, epoch, history):
        trial = history.record(int(history.numbers[row]))
        return Stop("so far", epoch) if epoch == 2 and trial.number % 2 and not trial.resumed else None


def study_with(rule=None, *, save=None, costs=None, sampler=True, seed=0, url=None):
    """A study with the pruning and, unless ``sampler`` is false, the sampler of this project."""
    random = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=random, storage=url, study_name="s", load_if_exists=True
    )
    about = {"metric": "accuracy", "costs": ["ms"], "chance": 0.0, "best": 1.0, "ceilings": [20.0]}
    pruning = MultiObjectivePruning(study, rule or NoPruner(), **about, save=save)
    if sampler:
        study.sampler = StudySampler(pruning, costs=costs, seed=seed)
    return pruning


def objective_of(pruning, steps):
    """An objective with parameters of each kind that appends ``(number, first step, params)`` to ``steps``."""

    def objective(trial):
        width = trial.suggest_int("width", 1, 256, log=True)
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        extra = trial.suggest_float("extra", 0.0, 1.0) if kind == "b" else 0.0
        ms = 0.05 * width + extra
        pruning.set_costs(trial, ms=ms)
        paused = pruning.paused(trial)
        first = paused.step + 1 if paused else 1
        steps.append((trial.number, first, dict(trial.params)))
        for step in range(first, EPOCHS + 1):
            accuracy = (1 - width**-0.5) * math.exp(-((math.log10(lr) + 2) ** 2)) * (1 - math.exp(-step / 3))
            pruning.report(trial, accuracy, step, seconds=2.0)
            if step < EPOCHS and pruning.should_prune(trial):
                raise optuna.TrialPruned
        return accuracy, ms

    return objective


def hypervolume(pruning):
    with pruning.history() as history:
        return pruning.objectives.hypervolume(front(history.records(), pruning.objectives))


def test_it_finds_a_larger_hypervolume_than_random_search():
    shares = []
    for ours in (True, False):
        found = []
        for seed in range(3):
            pruning = study_with(sampler=ours, seed=seed)
            pruning.study.optimize(objective_of(pruning, []), n_trials=30)
            found.append(hypervolume(pruning))
        shares.append(sum(found) / len(found))
    assert shares[0] > shares[1] + 0.01


def test_a_paused_trial_is_resumed_after_its_checkpoint_with_the_same_parameters():
    saved, steps = {}, []
    pruning = study_with(PauseAtStep2(), save=lambda trial: saved.update({trial.number: trial.user_attrs["curve"]}))
    pruning.study.optimize(objective_of(pruning, steps), n_trials=40)
    trials = pruning.study.get_trials()
    resumed = {trial.number: trial.user_attrs["replaces"] for trial in trials if "replaces" in trial.user_attrs}
    assert len(resumed) > 3
    assert set(resumed.values()) <= set(saved)
    assert len(set(resumed.values())) == len(resumed), "each is resumed once"
    for number, first, params in steps:
        assert first == (len(saved[resumed[number]]) + 1 if number in resumed else 1)
        if number in resumed:
            assert params == trials[resumed[number]].params
            assert [step for step, _ in trials[number].user_attrs["curve"]] == list(range(1, EPOCHS + 1))
            assert len(trials[number].user_attrs["cpu_seconds"]) == EPOCHS
    with pruning.history() as history:
        assert len(history) == len(trials) - len(resumed)
        assert history.complete.sum() == sum(trial.state == TrialState.COMPLETE for trial in trials)


def test_without_a_callback_nothing_is_paused():
    pruning = study_with(PauseAtStep2())
    pruning.study.optimize(objective_of(pruning, []), n_trials=20)
    attributes = [trial.user_attrs for trial in pruning.study.get_trials()]
    assert any("stop" in each for each in attributes)
    assert not any("outcome" in each or "replaces" in each for each in attributes)


def test_of_two_workers_that_resume_the_same_trial_one_stops(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first, second = (study_with(PauseAtStep2(), save=lambda trial: None, url=url) for _ in range(2))
    first.study.optimize(objective_of(first, []), n_trials=2)
    assert first.study.get_trials()[1].user_attrs["outcome"] == "paused"
    trials = [each.study.ask() for each in (first, second)]
    for pruning, trial in zip((first, second), trials, strict=True):
        pruning.resume(trial.number, 1)
        pruning.set_costs(trial, ms=1.0)
        assert pruning.paused(trial).number == 1
    assert [each.should_prune(trial) for each, trial in zip((first, second), trials, strict=True)] == [False, True]
    for pruning in (first, second):
        storage = pruning.study._storage._backend
        storage.remove_session()
        storage.engine.dispose()


def test_known_costs_are_computed_from_the_parameters():
    seen = []

    def costs(params):
        seen.append(params)
        return {"ms": 0.05 * params["width"]}

    pruning = study_with(costs=costs)
    pruning.study.optimize(objective_of(pruning, []), n_trials=12)
    assert seen
    assert all(set(params) == {"width", "lr", "kind"} for params in seen), "without conditional parameters"


def test_enqueued_trials_keep_their_parameters():
    pruning = study_with()
    pruning.study.optimize(objective_of(pruning, []), n_trials=10)
    pruning.study.enqueue_trial({"width": 7, "kind": "a"})
    pruning.study.optimize(objective_of(pruning, []), n_trials=1)
    params = pruning.study.get_trials()[-1].params
    assert (params["width"], params["kind"]) == (7, "a")


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(1, 9),
        IntDistribution(1, 9, step=4),
        IntDistribution(1, 100, log=True),
        FloatDistribution(-1.0, 1.0),
        FloatDistribution(0.0, 1.0, step=0.25),
        FloatDistribution(1e-5, 1.0, log=True),
        CategoricalDistribution(["a", None, 3, True]),
    ],
)
def test_draws_are_those_of_the_distribution(distribution):
    random = np.random.default_rng(0)
    values = [suggest(Draw(random), "x", distribution) for _ in range(200)]
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)
    assert len(set(values)) > 2


def test_the_example_of_the_documentation_runs_and_finds_a_front():
    document = ROOT / "search" / "pruning" / "OPTUNA.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    names = {}
    exec(compile(snippet, str(document), "exec"), names)
    study = names["study"]
    assert len(study.get_trials()) == 40
    assert hypervolume(names["pruning"]) > 0.7
    assert {trial.user_attrs.get("outcome") for trial in study.get_trials()} <= {None, "paused"}
