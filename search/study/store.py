"""Reads and writes the trials of a study as records; only this package knows how Optuna's storage holds them.

A trial that is resumed, or whose worker died, is requeued under a new number; the new trial replaces the old one.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study import requeue
from search.study.attributes import STATES, OpenTrial, read_record
from search.study.history import History
from search.study.records import COUNTED, Objectives, Record, State, Timing
from search.study.storage import get_or_set_attr, overwrite_values
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from spaces.baselines import BaselineResult

RUN_START = "run_start"  # study attribute: the command of the latest run, its versions and when it began
RUN_END = "run_end"  # study attribute: why and when a run of the study last ended
REMEASURED = "remeasured"  # study attribute: current timings by trial number, of trials that were measured again


class TrialStore:
    """The trials of a study as records; records of trials that have ended are cached.

    Args:
        study: in any storage.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._ended: dict[int, Record] = {}
        self._history: History | None = None

    # --- reading ---

    def all_records(self) -> dict[int, Record]:
        """Every started trial by number, including those that do not count towards ``n_trials``."""
        successors, remeasured = self.successors(), self._remeasured()["timings"]
        started = [trial for trial in self._trials() if trial.state in STATES]
        return {trial.number: self._read(trial, successors, remeasured) for trial in started}

    def records(self) -> list[Record]:
        """The trials that count towards ``n_trials``, in the order of their numbers."""
        return [record for record in self.all_records().values() if record.state in COUNTED]

    def record(self, number: int) -> Record:
        """A started trial."""
        return self._read(self._trials()[number], self.successors(), self._remeasured()["timings"])

    def history(self, objectives: Objectives) -> History:
        """The trials as arrays, updated. A requeued trial keeps its row until its replacement has started.

        Rows are in the order of first starts, whichever trials were interrupted.
        """
        if self._history is None:
            self._history = History(objectives)
        ordinals = requeue.ordinals(self._trials())
        for record in sorted(self.all_records().values(), key=lambda record: ordinals[record.number]):
            if record.state in COUNTED or record.number in self._history:
                self._history.add(record)
        return self._history

    def successors(self) -> dict[int, int]:
        """See :func:`search.study.requeue.successors`."""
        return requeue.successors(self._trials())

    def is_queued_twice(self, number: int) -> bool:
        """Whether an earlier trial replaces the same trial as this one, which then does not count."""
        replaced = self._trials()[number].user_attrs.get("replaces")
        return replaced is not None and self.successors()[replaced] != number

    def waiting(self) -> bool:
        """Whether a trial is queued."""
        return any(trial.state == TrialState.WAITING for trial in self._trials())

    def last_is_duplicate(self) -> bool:
        """Whether the last trial is a duplicate: then the sampler is likely to repeat itself."""
        trials = self._trials()
        return bool(trials) and trials[-1].user_attrs.get("outcome") == State.DUPLICATE

    def replaced(self, number: int) -> list[Record]:
        """The trials that a trial replaces, the latest first, as they were."""
        return [read_record(trial) for trial in requeue.chain(self._trials(), number)[1:]]

    def checkpoint(self, number: int) -> int:
        """The number of a trial's checkpoint: that of the first trial that it replaces."""
        return requeue.chain(self._trials(), number)[-1].number

    def ended_checkpoints(self) -> list[int]:
        """The checkpoints of trials that are complete or stopped for good."""
        trials, ended = self._trials(), (State.COMPLETE, State.PRUNED)
        numbers = (record.number for record in self.records() if record.state in ended)
        return [requeue.chain(trials, number)[-1].number for number in numbers]

    def lost(self) -> list[int]:
        """The trials that failed as too many workers died running them."""
        failed = (trial for trial in self._trials() if trial.state == TrialState.FAIL)
        return [trial.number for trial in failed if requeue.lost(trial.user_attrs)]

    def parameters(self, number: int) -> dict[str, Any]:
        """The parameters of a trial, as sampled."""
        return dict(self._trials()[number].params)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _read(self, trial: FrozenTrial, successors: Mapping[int, int], remeasured: Mapping[str, Any]) -> Record:
        record = self._ended.get(trial.number) or read_record(trial)
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
        """Record that this process runs ``trial``, and its architecture."""
        trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
        trial.set_user_attr("architecture", json.dumps(architecture))
        return OpenTrial(trial, self.record(trial.number))

    def write_timings(self, timings: Mapping[int, Timing], objectives: Objectives, *, complete: int) -> None:
        """Set the current timings of trials, by number, also in the objective values that Optuna holds.

        ``complete`` is the number of complete trials at that time.
        """
        stored = self._remeasured()["timings"] | {str(number): asdict(timing) for number, timing in timings.items()}
        self.study.set_user_attr(REMEASURED, {"complete": complete, "timings": stored})
        trials = self._trials()
        ms = {trials[number]._trial_id: timing.ms for number, timing in timings.items() if trials[number].values}
        overwrite_values(self.study, 1 + objectives.costs.index("latency_ms"), ms)

    def complete_when_remeasured(self) -> int | None:
        """The number of complete trials when latencies were last measured again; None if they never were."""
        complete: int | None = self._remeasured()["complete"]
        return complete

    def _remeasured(self) -> dict[str, Any]:
        return {"complete": None, "timings": {}} | self.study.user_attrs.get(REMEASURED, {})

    # --- the study ---

    def identity(self) -> dict[str, Any]:
        """The settings that all workers of the study share; see :func:`search.study.storage.open_study`.

        Raises:
            ConfigError: the study was not created by ``search.run``.
        """
        return dict(json.loads(self._study_attr("identity")))

    def ceilings(self, compute: Callable[[], list[float]] | None = None) -> list[float]:
        """The upper bounds of the costs; ``compute()`` if they are not stored yet, and then stored.

        Raises:
            ConfigError: they are not stored, and ``compute`` is None.
        """
        ceilings = get_or_set_attr(self.study, "ceilings", compute) if compute else self._study_attr("ceilings")
        return list(ceilings)

    def baselines(self, compute: Callable[[], list[BaselineResult]] | None = None) -> list[BaselineResult]:
        """The results of the task's baselines; ``compute()`` if they are not stored yet, and then stored.

        Empty if they are not stored and ``compute`` is None.
        """
        if compute is None:
            stored = self.study.user_attrs.get("baselines", [])
        else:
            stored = get_or_set_attr(self.study, "baselines", lambda: [asdict(result) for result in compute()])
        from spaces.baselines import BaselineResult  # needs torch, which the pruners in a user's own study do without

        return [BaselineResult(**result) for result in stored]

    def epochs(self, compute: Callable[[], int | None]) -> int | None:
        """The epochs of every training; ``compute()`` in a study without trials, and then stored.

        None if they are those of the space.
        """
        epochs: int | None = get_or_set_attr(self.study, "epochs", lambda: None if self._trials() else compute())
        return epochs

    def study_id(self) -> str:
        """A unique id of the study, which distinguishes it from others of the same name."""
        return str(get_or_set_attr(self.study, "id", lambda: uuid.uuid4().hex))

    def write_run_start(self, command: str, versions: Mapping[str, str]) -> None:
        """Record the command of a run that begins now, and the versions of its packages; the latest one is kept."""
        self.study.set_user_attr(RUN_START, {"command": command, "versions": dict(versions), "at": time.time()})

    def run_start(self) -> dict[str, Any] | None:
        """``command``, ``versions`` and ``at``, in seconds since 1970, of the latest run; None if there was none."""
        found: dict[str, Any] | None = self.study.user_attrs.get(RUN_START)
        return found

    def write_run_end(self, reason: str) -> None:
        """Record why a run of the study ended, a clause, and that it did so now; the latest one is kept."""
        self.study.set_user_attr(RUN_END, {"reason": reason, "at": time.time()})

    def run_end(self) -> tuple[str, float] | None:
        """Why a run of the study last ended, and when, in seconds since 1970; None if none has yet."""
        found = self.study.user_attrs.get(RUN_END)
        return (found["reason"], found["at"]) if found else None

    def _study_attr(self, name: str) -> Any:
        try:
            return self.study.user_attrs[name]
        except KeyError:
            message = f"the study {self.study.study_name!r} has no {name}: it was not created by search.run"
            raise ConfigError(message) from None

    # --- the queue ---

    def enqueue_first(self, parameters: Iterable[Mapping[str, Any]]) -> None:
        """Queue the first trials of a new study; missing parameters are sampled. No-op in a study that has trials."""
        if not self._trials():
            for each in parameters:
                self.study.enqueue_trial(dict(each), skip_if_exists=True)

    def enqueue(self, parameters: Mapping[str, Any]) -> None:
        """Queue a trial with these parameters."""
        self.study.enqueue_trial(dict(parameters))

    def resume(self, number: int) -> None:
        """Requeue a paused trial, to be resumed from its checkpoint under a new number."""
        requeue.requeue(self.study, number)

    def requeue_interrupted(self) -> None:
        """Requeue the trials that were interrupted and have not been requeued."""
        requeue.requeue_interrupted(self.study)
