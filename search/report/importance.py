"""How much each dimension matters for each objective, by fANOVA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial

import optuna

from search.study.records import Objectives

MIN_TRIALS = 8  # complete ones, for an estimate
MAX_TRIALS = 200  # of more, so many are chosen, as the time grows faster than their number
N_TREES = 16
MAX_LISTED = 3  # dimensions that a sentence names
LEAST = 0.05  # share of one that it names

Importance = Mapping[str, Mapping[str, float]]  # of each dimension, by objective


def importance(study: optuna.Study, objectives: Objectives) -> dict[str, dict[str, float]]:
    """The share of each objective's variance that each dimension explains, by fANOVA; empty of too few trials.

    Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", 2014, as implemented in Optuna. Of
    dimensions that only some trials have, there is none.
    """
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < MIN_TRIALS:
        return {}
    if len(complete) > MAX_TRIALS:
        study = optuna.create_study(directions=study.directions)
        study.add_trials(complete[at * len(complete) // MAX_TRIALS] for at in range(MAX_TRIALS))
    found = {}
    for index, name in enumerate((objectives.metric, *objectives.costs)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                shares = optuna.importance.get_param_importances(
                    study,
                    evaluator=optuna.importance.FanovaImportanceEvaluator(n_trees=N_TREES, seed=0),
                    target=partial(_value, index),
                )
            except (ValueError, RuntimeError):  # such as no dimension that all trials have
                continue
        found[name] = {dimension: share for dimension, share in shares.items() if math.isfinite(share)}
    return {name: shares for name, shares in found.items() if shares}


def _value(index: int, trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.values[index])


def describe_importance(shares: Importance) -> str:
    """The most important dimensions for each objective, in a sentence; empty if nothing is known."""
    found = []
    for objective, each in shares.items():
        most = sorted(each, key=lambda name: -each[name])[:MAX_LISTED]
        listed = ", ".join(f"{name} {each[name]:.0%}" for name in most if each[name] >= LEAST)
        if listed:
            found.append(f"{objective}: {listed}")
    return f"Share of the variance that a dimension explains: {'; '.join(found)}." if found else ""
