"""The trials of a study, read and written as records: the only module that knows how Optuna's storage holds them.

Everything is kept in user attributes, so any storage of Optuna's will do. Not in intermediate values: Optuna's TPE
sampler fails in a multi-objective study on a pruned trial that has some.

A trial that is resumed, or whose worker died, is queued again under a new number; the trial of the new number replaces
the other one.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study.history import History
from search.study.records import COUNTED, Objectives, Record, State, Stop, Timing
from search.study.requeue import requeue
from search.study.storage import overwrite_values

REMEASURED = "remeasured"  # the study's attribute: current timings by trial number, where they are not the first ones
_BEGUN: Mapping[TrialState, State] = {
    TrialState.RUNNING: State.RUNNING,
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
}
_PLAIN = (
    "costs",
    "test_metrics",
    "error",
    "cpu_seconds",
    "training_s",
    "latency_s",
    "overhead",
    "worker",
    "duplicate_of",
)


class TrialStore:
    """The trials of a study as records. Reading is cheap: a record of a trial that has ended is kept.

    Args:
        study: in any storage.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._ended: dict[int, Record] = {}
        self._history: History | None = None

    # --- reading ---

    def everything(self) -> dict[int, Record]:
        """Every trial that has begun by its number, also those that don't count towards ``n_trials``."""
        successors, remeasured = self.successors(), self._remeasured()["timings"]
        begun = [trial for trial in self._trials() if trial.state in _BEGUN]
        return {trial.number: self._read(trial, successors, remeasured) for trial in begun}

    def records(self) -> list[Record]:
        """The trials that count towards ``n_trials``, in the order of their numbers."""
        return [record for record in self.everything().values() if record.state in COUNTED]

    def record(self, number: int) -> Record:
        """One trial that has begun."""
        return self._read(self._trials()[number], self.successors(), self._remeasured()["timings"])

    def history(self, objectives: Objectives) -> History:
        """The trials as arrays, brought up to date. A trial that is queued again keeps its row until it has begun."""
        if self._history is None:
            self._history = History(objectives)
        for record in self.everything().values():
            if record.state in COUNTED or record.number in self._history:
                self._history.add(record)
        return self._history

    def successors(self) -> dict[int, int]:
        """The number under which a trial was queued again, by its own; it may still wait for a worker."""
        trials = self._trials()
        return {trial.user_attrs["replaces"]: trial.number for trial in trials if "replaces" in trial.user_attrs}

    def waiting(self) -> bool:
        """Whether a trial is queued."""
        return any(trial.state == TrialState.WAITING for trial in self._trials())

    def last_is_duplicate(self) -> bool:
        """Whether the trial that was begun last is a duplicate: then the sampler tends to repeat itself."""
        trials = self._trials()
        return bool(trials) and trials[-1].user_attrs.get("outcome") == State.DUPLICATE

    def resumes(self, number: int) -> Record | None:
        """The paused trial that a trial resumes; None where it starts anew."""
        resumed = self._trials()[number].user_attrs.get("resumes")
        return None if resumed is None else self.record(resumed)

    def parameters(self, number: int) -> dict[str, Any]:
        """What the sampler chose for a trial."""
        return dict(self._trials()[number].params)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _read(self, trial: FrozenTrial, successors: Mapping[int, int], remeasured: Mapping[str, Any]) -> Record:
        record = self._ended.get(trial.number) or _record(trial)
        if trial.state.is_finished():
            self._ended[trial.number] = record
        if trial.number in successors:
            record = replace(record, state=State.REPLACED)
        if timing := remeasured.get(str(trial.number)):
            costs = {**record.costs, "latency_ms": timing["ms"]}
            record = replace(record, costs=costs, timings=(*record.timings, Timing(**timing)))
        return record

    # --- writing ---

    def begin(self, trial: optuna.Trial, architecture: Mapping[str, Any]) -> OpenTrial:
        """Note that this process runs ``trial``."""
        trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
        trial.set_user_attr("architecture", json.dumps(architecture))
        return OpenTrial(trial, self.record(trial.number))

    def remeasure(self, timings: Mapping[int, Timing], objectives: Objectives, *, complete: int) -> None:
        """Give trials a current timing by number, and those that Optuna holds values of new values.

        ``complete`` is how many trials were complete then.
        """
        stored = self._remeasured()["timings"] | {str(number): asdict(timing) for number, timing in timings.items()}
        self.study.set_user_attr(REMEASURED, {"complete": complete, "timings": stored})
        trials = self._trials()
        ms = {trials[number]._trial_id: timing.ms for number, timing in timings.items() if trials[number].values}
        overwrite_values(self.study, 1 + objectives.costs.index("latency_ms"), ms)

    def complete_when_remeasured(self) -> int | None:
        """How many trials were complete when timings were last taken again; None if they never were."""
        complete: int | None = self._remeasured()["complete"]
        return complete

    def _remeasured(self) -> dict[str, Any]:
        return {"complete": None, "timings": {}} | self.study.user_attrs.get(REMEASURED, {})

    # --- the queue ---

    def enqueue_first(self, parameters: Iterable[Mapping[str, Any]]) -> None:
        """Queue parameters for a new study to begin with; what they leave open is sampled. No-op once it has begun."""
        if not self._trials():
            for each in parameters:
                self.study.enqueue_trial(dict(each), skip_if_exists=True)

    def enqueue(self, parameters: Mapping[str, Any]) -> None:
        """Queue an architecture by its parameters."""
        self.study.enqueue_trial(dict(parameters))

    def resume(self, number: int) -> None:
        """Queue a paused trial to be resumed from its checkpoint, under a new number."""
        requeue(self.study, self._trials()[number], resumes=number)


class OpenTrial:
    """A trial that this process runs: its record, and the way to write to it."""

    def __init__(self, trial: optuna.Trial, record: Record) -> None:
        self._trial, self.record = trial, record
        self.number = trial.number

    def write(self, **changes: Any) -> Record:
        """Change fields of the record, in the storage too; the record afterwards."""
        for name, value in changes.items():
            if name == "stop":
                self._trial.set_user_attr("stop", asdict(value))
            elif name == "timings":
                self._trial.set_user_attr("timing", asdict(value[-1]))
            elif name != "state" and name != "metric":  # Optuna keeps those itself
                self._trial.set_user_attr(name, value)
            elif value in (State.PAUSED, State.DUPLICATE, State.OVER_QUOTA):  # states that Optuna doesn't have
                self._trial.set_user_attr("outcome", str(value))
        self.record = replace(self.record, **changes)
        return self.record

    def constrain(self, name: str, excess: float) -> None:
        """Note a constraint for samplers that know constraints; it is violated above 0."""
        self._trial.set_constraint(name, excess)


def _record(trial: FrozenTrial) -> Record:
    known = trial.user_attrs
    stop, timing = known.get("stop"), known.get("timing")
    timings = () if timing is None else (Timing(**timing),)
    plain = {name: known[name] for name in _PLAIN if name in known}
    return Record(
        number=trial.number,
        state=State(known.get("outcome", _BEGUN[trial.state])) if trial.state.is_finished() else _BEGUN[trial.state],
        **plain | {"costs": {**({"latency_ms": timings[0].ms} if timings else {}), **plain.get("costs", {})}},
        curve=[(int(epoch), float(metric)) for epoch, metric in known.get("curve", [])],
        metric=trial.values[0] if trial.state == TrialState.COMPLETE else None,
        architecture=json.loads(known.get("architecture", "{}")),
        timings=timings,
        stop=None if stop is None else Stop(**{**stop, "beaten_by": tuple(stop["beaten_by"])}),
        replaces=known.get("replaces"),
    )
