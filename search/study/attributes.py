"""The user attributes of a trial: how its record is stored in any Optuna storage.

Intermediate values are not used: Optuna's TPE sampler fails on a pruned trial that has some in a multi-objective study.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study.processes import shown_name
from search.study.records import Record, State, Stop, Timing

MAX_TRIES = 3  # workers that may die running a trial: it may be the cause
STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: State.RUNNING,
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
}
TRAINING = "training"  # attribute with the fields that change after each epoch, written in one transaction
_TRAINING_FIELDS = ("curve", "cpu_seconds", "training_s", "overhead")
_PLAIN_FIELDS = (  # stored as they are, under their own names
    "costs",
    "validation_metrics",
    "test_metrics",
    "error",
    "traceback",
    "latency_s",
    "resumed",
    "worker",
    "weights",
    "duplicate_of",
)


class OpenTrial:
    """A trial that this process runs, and its record."""

    def __init__(self, trial: optuna.Trial, record: Record) -> None:
        self._trial, self.record = trial, record
        self.number = trial.number

    def write(self, **changes: Any) -> Record:
        """Change fields of the record and store them; return the new record."""
        record = replace(self.record, **changes)
        if not changes.keys().isdisjoint(_TRAINING_FIELDS):
            self._trial.set_user_attr(TRAINING, {name: getattr(record, name) for name in _TRAINING_FIELDS})
        for name, value in changes.items():
            if name == "stop":
                self._trial.set_user_attr("stop", asdict(value))
            elif name == "timings":
                self._trial.set_user_attr("timing", asdict(value[-1]))
            elif name in _PLAIN_FIELDS:
                self._trial.set_user_attr(name, value)
            elif value in (State.PAUSED, State.DUPLICATE, State.OVER_QUOTA):  # states that Optuna doesn't have
                self._trial.set_user_attr("outcome", str(value))
        self.record = record
        return record

    def constrain(self, name: str, excess: float) -> None:
        """Store a constraint for Optuna's samplers; it is violated above 0."""
        self._trial.set_constraint(name, excess)


def read_record(trial: FrozenTrial) -> Record:
    """The record of a started trial, with the timing from when it ran."""
    known = trial.user_attrs
    stop, timing = known.get("stop"), known.get("timing")
    told = trial.state in (TrialState.PRUNED, TrialState.COMPLETE)  # its worker did not die before it told the outcome
    timings = () if timing is None else (Timing(**timing),)
    training = {"curve": [], **known, **known.get(TRAINING, {})}  # up to version 0.2 they were stored one by one
    plain = {name: training[name] for name in (*_PLAIN_FIELDS, *_TRAINING_FIELDS) if name in training}
    plain["worker"] = shown_name(plain.get("worker", ""))
    plain["curve"] = [(int(epoch), float(metric)) for epoch, metric in plain["curve"]]
    if trial.state == TrialState.FAIL and lost(known):
        plain["error"] = died()
    return Record(
        number=trial.number,
        state=State(known["outcome"]) if told and "outcome" in known else STATES[trial.state],
        **plain,
        metric=trial.values[0] if trial.state == TrialState.COMPLETE else None,
        architecture=json.loads(known.get("architecture", "{}")),
        parameters=trial.params,
        timings=timings,
        stop=None if stop is None else Stop(**{**stop, "beaten_by": tuple(stop["beaten_by"])}),
        ended_at=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
    )


def lost(attributes: Mapping[str, Any]) -> bool:
    """Whether a failed trial, by its user attributes, was ended by the death of too many workers."""
    return "error" not in attributes and attributes.get("tries", 1) >= MAX_TRIES and "interrupted" not in attributes


def died() -> str:
    """Why such a trial is not tried again."""
    return f"{MAX_TRIES} workers died while they ran it, as when memory runs out"


def write_error(trial: optuna.Trial, error: Exception) -> None:
    """Store why a trial failed."""
    trial.set_user_attr("error", f"{type(error).__name__}: {error}")
    trial.set_user_attr("traceback", "".join(traceback.format_exception(error)))


def write_interruption(trial: optuna.Trial) -> None:
    """Store that a trial was interrupted, not ended by the death of its worker; nothing if it has ended already."""
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("interrupted", True)
