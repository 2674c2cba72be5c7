"""Requeue trials: paused ones that are resumed, interrupted ones, and those of dead workers.

One that ``MAX_TRIES`` workers have died running is pruned instead, as it is likely to be the cause.

Optuna numbers the requeued one anew; for everybody else the trial keeps the number of its first start. The requeued one
has ``replaces``, Optuna's number of the trial that it was requeued for, in its user attributes. Two workers may requeue
the same trial at the same time; of its replacements the one with the lowest number counts. Optuna numbers them under a
lock, so whoever sees one sees those before it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study.attributes import died, lost, read_record
from search.study.processes import WORKER, ProcessState, state_of_process
from search.study.records import UNUSABLE, State, Stop
from search.study.retrying import is_recovering


def successors(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """The number of the trial that replaces a trial, by its own number; it may still be queued."""
    found: dict[int, int] = {}
    for trial in trials:
        if "replaces" in trial.user_attrs:
            found.setdefault(trial.user_attrs["replaces"], trial.number)
    return found


def chain(trials: Sequence[FrozenTrial], number: int) -> list[FrozenTrial]:
    """A trial and those that it replaces, the latest first."""
    found = [trials[number]]
    while (replaced := found[-1].user_attrs.get("replaces")) is not None:
        found.append(trials[replaced])
    return found


def started_last(trials: Sequence[FrozenTrial], after: Mapping[int, int], first: FrozenTrial) -> FrozenTrial | None:
    """The trial that was started last of the chain that begins with ``first``; None if it was not started.

    ``after`` is what :func:`successors` returns.
    """
    if first.state == TrialState.WAITING:
        return None
    trial = first
    while (number := after.get(trial.number)) is not None and trials[number].state != TrialState.WAITING:
        trial = trials[number]
    return trial


def latest(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The trial that was started last of each chain, by the number of the chain's first trial."""
    after = successors(trials)
    firsts = (trial for trial in trials if "replaces" not in trial.user_attrs)
    found = ((first.number, started_last(trials, after, first)) for first in firsts)
    return {number: trial for number, trial in found if trial is not None}


def ordinals(trials: Sequence[FrozenTrial]) -> list[int]:
    """How many trials were started before each trial, by number; a replacement has that of the trial it replaces.

    Unlike its number, this does not depend on how often trials were interrupted.
    """
    found: list[int] = []
    count = 0
    for trial in trials:
        replaced = trial.user_attrs.get("replaces")
        found.append(count if replaced is None else found[replaced])
        count += replaced is None
    return found


def requeue(study: optuna.Study, number: int, **attributes: Any) -> None:
    """Queue a trial that replaces trial ``number``, with its parameters and ``attributes`` as user attributes.

    Of a trial that was interrupted while its parameters were sampled, those that were sampled before are left out, so
    that all are sampled again in order.
    """
    trials = study.get_trials(deepcopy=False)
    known = next((trial for trial in chain(trials, number) if "architecture" in trial.user_attrs), None)
    queued = chain(trials, number)[-1].system_attrs.get("fixed_params")
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=known.params if known else {},
            distributions=known.distributions if known else {},
            system_attrs={"fixed_params": queued} if queued and not known else {},
            user_attrs={"replaces": number, **attributes},
        )
    )


def prune_lost(study: optuna.Study, number: int) -> None:
    """Replace a trial that too many workers have died running by a pruned one with its attributes and a constraint.

    One that was not even sampled completely has failed.
    """
    trials = study.get_trials(deepcopy=False)
    known = next((trial for trial in chain(trials, number) if "architecture" in trial.user_attrs), None)
    if known is None:
        return
    stop = Stop(died(), read_record(known).epochs)
    study.add_trial(
        optuna.create_trial(
            state=TrialState.PRUNED,
            params=known.params,
            distributions=known.distributions,
            user_attrs={**known.user_attrs, "replaces": number, "stop": asdict(stop), "outcome": str(State.PRUNED)},
            constraints={UNUSABLE: 1.0},
        )
    )


def requeue_interrupted(study: optuna.Study) -> None:
    """Requeue the failed trials that have no error: they were interrupted, or their worker died.

    Those that too many workers have died running are pruned.
    """
    trials = study.get_trials(deepcopy=False)
    replaced = successors(trials)
    for trial in trials:
        known = trial.user_attrs
        if trial.state != TrialState.FAIL or "error" in known or trial.number in replaced:
            continue
        if replaced.get(known.get("replaces", -1), trial.number) != trial.number:
            continue  # it was queued twice itself
        if lost(known):
            prune_lost(study, trial.number)
        else:
            requeue(study, trial.number, tries=known.get("tries", 1) + ("interrupted" not in known))


def fail_stale(study: optuna.Study, grace_s: float) -> None:
    """Fail and requeue trials without a heartbeat for ``grace_s`` seconds, also those that never had one.

    Those whose process has ended on this machine are not waited for: otherwise a run that is killed and started again
    at once would begin with other trials.
    """
    requeue_interrupted(study)
    if is_recovering(study):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        # A trial has the attribute WORKER only once its heartbeat has started.
        since = None if WORKER in trial.user_attrs else trial.datetime_start
        late = since is not None and (datetime.now() - since).total_seconds() > grace_s
        if late or state_of_process(trial) == ProcessState.ENDED:
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                continue  # another worker was faster
    requeue_interrupted(study)
