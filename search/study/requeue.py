"""Requeue trials under a new number: resumed and interrupted ones, and those of dead workers."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study.retrying import is_recovering

MAX_TRIES = 3  # workers that may die running a trial: it may be the cause


def requeue(study: optuna.Study, trial: FrozenTrial, **attributes: Any) -> None:
    """Queue a trial that replaces ``trial``: the same parameters, and only ``attributes`` as user attributes."""
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"replaces": trial.number, **attributes},
        )
    )


def requeue_interrupted(study: optuna.Study, trial: FrozenTrial, *, tries: int) -> None:
    """Requeue a trial that was interrupted; if it resumed a paused trial, its replacement resumes that one too."""
    resumes = {name: trial.user_attrs[name] for name in ("resumes",) if name in trial.user_attrs}
    requeue(study, trial, tries=tries, **resumes)


def requeue_stale(study: optuna.Study, trial: FrozenTrial) -> None:
    """Requeue the trial of a dead worker, unless ``MAX_TRIES`` workers have died running it."""
    tries = trial.user_attrs.get("tries", 1)
    if tries < MAX_TRIES:
        requeue_interrupted(study, trial, tries=tries + 1)


def fail_stale(study: optuna.Study, grace_s: float) -> None:
    """Fail and requeue trials without a heartbeat for ``grace_s`` seconds, also those that never had one."""
    if is_recovering(study):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # calls requeue_stale, see storage.py
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        # A trial has the attribute "worker" only once its heartbeat has started.
        if "worker" in trial.user_attrs or trial.datetime_start is None:
            continue
        if (datetime.now() - trial.datetime_start).total_seconds() > grace_s:
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                continue  # another worker was faster
            requeue_stale(study, trial)
