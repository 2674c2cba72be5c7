"""A study's trials: read as records, put back when their worker died, taken up again when they were stopped too early.

A worker that is killed leaves a running trial without a heartbeat; whoever notices puts the same parameters back in the
queue, under a new number. The trial of the new number replaces the other one.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study.history import History
from search.study.records import Objectives, Record, State, Stop

# What ended stays as it is: pruning asks for all records after every epoch.
_ended: WeakKeyDictionary[optuna.Study, dict[int, Record]] = WeakKeyDictionary()
_histories: WeakKeyDictionary[optuna.Study, History] = WeakKeyDictionary()
RETIMED = "retimed"  # the study's attribute with the latencies measured side by side, see search/costs/remeasure.py
MOST_TRIES = 3  # of a trial whose worker died: it may be the trial that kills them
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def enqueue_first(study: optuna.Study, beginnings: Iterable[Mapping[str, Any]]) -> None:
    """Queue parameters to begin a new study with; what they leave open is drawn. One that has begun goes on."""
    if not study.get_trials(deepcopy=False):
        for parameters in beginnings:
            study.enqueue_trial(dict(parameters), skip_if_exists=True)


def records(study: optuna.Study) -> list[Record]:
    """Every trial that counts, in order: not those put back in the queue, and not those still in it.

    Latencies that were measured again, side by side, stand in the place of the first ones.
    """
    ended = _ended.setdefault(study, {})
    retimed = study.user_attrs.get(RETIMED, {}).get("trials", {})
    everyone = []
    for trial in counted(study):
        known = ended.get(trial.number) or record(trial)
        if trial.state.is_finished():
            ended[trial.number] = known
        if str(trial.number) in retimed:
            ms, spread = retimed[str(trial.number)]
            details = {**known.details, "first_latency_ms": known.costs["latency_ms"], "latency_spread": spread}
            known = replace(known, costs={**known.costs, "latency_ms": ms}, details=details)
        everyone.append(known)
    return everyone


def history(study: optuna.Study, objectives: Objectives) -> History:
    """The same as arrays, brought up to date; one a study and process."""
    everyone, known = records(study), _histories.get(study)
    # A trial that counts no more, as one that was queued to go on, leaves no row behind.
    if known is None or not known.numbers_known() <= {each.number for each in everyone}:
        known = _histories[study] = History(objectives)
    for each in everyone:
        known.add(each)
    return known


def record(trial: FrozenTrial) -> Record:
    """What the search knows of one trial."""
    known = trial.user_attrs
    stop = known.get("stop")
    return Record(
        number=trial.number,
        state=_STATES[trial.state],
        costs=known.get("costs", {}),
        curve=[(int(epoch), float(metric)) for epoch, metric in known.get("curve", [])],
        metric=trial.values[0] if trial.state == TrialState.COMPLETE else None,
        architecture=json.loads(known.get("architecture", "{}")),
        reason=known.get("reason", ""),
        details=known.get("details", {}),
        stop=None if stop is None else Stop(**stop),
        replaces=known.get("retry_of"),
    )


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that use up ``n_trials``: those running or ended, unless their parameters were put back."""
    gone = went_on(study)
    return [trial for trial in _begun(study) if trial.number not in gone]


def went_on(study: optuna.Study) -> dict[int, int]:
    """The number under which a trial was put back in the queue, by its own; it may still stand in it."""
    trials = study.get_trials(deepcopy=False)
    return {trial.user_attrs["retry_of"]: trial.number for trial in trials if "retry_of" in trial.user_attrs}


def superseded(study: optuna.Study) -> dict[int, Record]:
    """What is known of those trials, which :func:`records` leaves out, by number."""
    gone = went_on(study)
    return {trial.number: record(trial) for trial in _begun(study) if trial.number in gone}


def _begun(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state in _STATES and not trial.user_attrs.get("surplus")]


def put_back(study: optuna.Study, trial: FrozenTrial, *, tries: int) -> None:
    """Queue the parameters of a trial that ended without a result; of its attributes only whom it resumes is kept."""
    resumes = {name: trial.user_attrs[name] for name in ("resumes",) if name in trial.user_attrs}
    _queue(study, trial, retry_of=trial.number, tries=tries, **resumes)


def take_up(study: optuna.Study, number: int) -> None:
    """Queue a stopped trial to go on from its checkpoint, under a new number."""
    _queue(study, study.get_trials(deepcopy=False)[number], retry_of=number, resumes=number)


def _queue(study: optuna.Study, trial: FrozenTrial, **attributes: Any) -> None:
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attributes,
        )
    )


def put_back_after_death(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a dead worker's trial again, unless it has cost ``MOST_TRIES`` workers."""
    tries = trial.user_attrs.get("tries", 1)
    if tries < MOST_TRIES:
        put_back(study, trial, tries=tries + 1)


def take_over(study: optuna.Study, grace_s: float) -> None:
    """Put back the trials of dead workers, those included that died before the first heartbeat."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        # A trial is marked with its worker only once its heart beats.
        if "worker" in trial.user_attrs or trial.datetime_start is None:
            continue
        if (datetime.now() - trial.datetime_start).total_seconds() > grace_s:
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                continue  # another worker was faster
            put_back_after_death(study, trial)
