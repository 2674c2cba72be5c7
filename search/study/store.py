"""Reads and writes the trials of a study as records; only this package knows how Optuna's storage holds them.

A trial that is resumed, or whose worker died, is a new trial for Optuna, which replaces the old one. Here and in all
that users see it keeps the number of its first start: only the arguments called ``trial_number`` are Optuna's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from itertools import pairwise, zip_longest
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study import requeue
from search.study.attributes import OpenTrial, lost, read_record
from search.study.history import History, Prediction
from search.study.processes import WORKER, worker_name
from search.study.records import COUNTED, Objectives, Record, State, Timing
from search.study.shared import SharedAttributes
from search.study.storage import overwrite_values

# Study attributes: REMEASURED:NUMBER is the current timing of a trial that was measured again, and REMEASURED_ON:HOST
# the number of complete trials when that host last did so.
REMEASURED, REMEASURED_ON = "remeasured", "remeasured_on"


class TrialStore(SharedAttributes):
    """The trials of a study as records; records of trials that have ended are cached.

    Args:
        study: in any storage.

    Attributes:
        prior: of its histories; see there.
    """

    def __init__(self, study: optuna.Study) -> None:
        super().__init__(study)
        self.prior: Callable[[Mapping[str, Any]], Prediction] | None = None
        self._ended: dict[int, Record] = {}
        self._history: History | None = None
        self._lock = threading.Lock()  # of what follows, which the thread of the status line reads too
        self._forget()

    def _forget(self) -> None:
        """Forget what was read, except records of trials that have ended."""
        self._seen: list[FrozenTrial] = []
        self._timings: Mapping[str, Any] = {}  # of trials that were measured again
        self._after: dict[int, int] = {}  # see requeue.successors
        self._records: dict[int, Record] = {}
        self._changed: set[int] = set()  # the numbers of records that the history lacks

    # --- reading ---

    def all_records(self) -> dict[int, Record]:
        """Every started trial by number, including those that do not count towards ``n_trials``."""
        with self._lock:
            self._update()
            return dict(self._records)

    def _update(self) -> None:
        """Read the records of trials that have changed; Optuna returns the same object for one that has not."""
        trials, timings = self._trials(), self._remeasured()
        if timings != self._timings:
            self._forget()
            self._timings = timings
        changed = [trial for trial, seen in zip_longest(trials, self._seen) if trial is not seen]
        for number, replacement in requeue.successors(changed).items():
            self._after.setdefault(number, replacement)
        for trial in changed:
            if "replaces" in trial.user_attrs:  # in other Optuna studies it is set after the start
                self._records.pop(trial.number, None)
                self._changed.discard(trial.number)
        numbers, known = {requeue.chain(trials, trial.number)[-1].number for trial in changed}, len(self._records)
        for number in sorted(numbers):
            trial = requeue.started_last(trials, self._after, trials[number])
            if trial is not None:
                record = self._read(trial, number, timings)
                # If there is a replacement, it is queued again.
                queued = trial.number in self._after
                self._records[number] = replace(record, state=State.REPLACED) if queued else record
                self._changed.add(number)
        if len(self._records) > known and any(number > after for number, after in pairwise(self._records)):
            self._records = dict(sorted(self._records.items()))  # a queued trial was started after later ones
        self._seen = trials

    def records(self) -> list[Record]:
        """The trials that count towards ``n_trials``, in the order of their numbers."""
        return [record for record in self.all_records().values() if record.state in COUNTED]

    def record(self, number: int) -> Record:
        """A started trial."""
        return self.all_records()[self.number(number)]

    def read(self, trial_number: int) -> Record:
        """A started trial as it was under Optuna's ``trial_number``, whether or not it was resumed since."""
        return self._read(self._trials()[trial_number], self.number(trial_number), self._remeasured())

    def number(self, trial_number: int) -> int:
        """The number of the trial that Optuna calls ``trial_number``: that of its first start."""
        return requeue.chain(self._trials(), trial_number)[-1].number

    def history(self, objectives: Objectives) -> History:
        """The trials as arrays, updated. A requeued trial has its row before it has started again.

        Rows are in the order of first starts, whichever trials were interrupted and whenever this worker has begun.
        """
        if self._history is None:
            self._history = History(objectives)
        self._history.prior = self.prior
        with self._lock:
            self._update()
            for number in sorted(self._changed):
                if self._records[number].state in {*COUNTED, State.REPLACED} or number in self._history:
                    self._history.add(self._records[number])
            self._changed.clear()
        return self._history

    def is_queued_twice(self, trial_number: int) -> bool:
        """Whether another trial replaces the same trial as this one, which then does not count."""
        trials = self._trials()
        replaced = trials[trial_number].user_attrs.get("replaces")
        return replaced is not None and requeue.successors(trials)[replaced] != trial_number

    def waiting(self) -> bool:
        """Whether a trial is queued."""
        return any(trial.state == TrialState.WAITING for trial in self._trials())

    def last_is_duplicate(self) -> bool:
        """Whether the last trial is a duplicate: then the sampler is likely to repeat itself."""
        trials = self._trials()
        return bool(trials) and trials[-1].user_attrs.get("outcome") == State.DUPLICATE

    def earlier(self, number: int) -> list[Record]:
        """A trial as it was before it was requeued, each time, the latest first; empty of one that never was."""
        trials, remeasured = self._trials(), self._remeasured()
        chain = requeue.chain(trials, self._current(number))
        return [self._read(each, number, remeasured) for each in chain[1:]]

    def ended(self) -> list[int]:
        """The trials that are complete or stopped for good."""
        return [record.number for record in self.records() if record.state in (State.COMPLETE, State.PRUNED)]

    def lost(self) -> list[int]:
        """The trials that too many workers died running."""
        failed = (trial for trial in self._trials() if trial.state == TrialState.FAIL)
        return [self.number(trial.number) for trial in failed if lost(trial.user_attrs)]

    def parameters(self, number: int) -> dict[str, Any]:
        """The parameters of a trial, as sampled."""
        trials = self._trials()
        return dict(trials[self._current(number)].params)

    def _current(self, number: int) -> int:
        """Optuna's number of a started trial."""
        return requeue.latest(self._trials())[number].number

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _read(self, trial: FrozenTrial, number: int, remeasured: Mapping[str, Any]) -> Record:
        record = self._ended.get(trial.number) or replace(read_record(trial), number=number)
        if trial.state.is_finished():
            self._ended[trial.number] = record
        if timing := remeasured.get(str(trial.number)):
            costs = {**record.costs, "latency_ms": timing["ms"]}
            record = replace(record, costs=costs, timings=(*record.timings, Timing(**timing)))
        return record

    # --- writing ---

    def begin(self, trial: optuna.Trial, architecture: Mapping[str, Any]) -> OpenTrial:
        """Record that this process runs ``trial``, and its architecture."""
        trial.set_user_attr(WORKER, worker_name())
        trial.set_user_attr("architecture", json.dumps(architecture))
        return OpenTrial(trial, self.read(trial.number))

    def write_timings(self, timings: Mapping[int, Timing], objectives: Objectives, *, host: str, complete: int) -> None:
        """Set the current timings of trials, by number, also in the objective values that Optuna holds.

        ``complete`` is the number of complete trials when ``host`` measured them. It is written last: after a failure
        before that they are measured again.
        """
        trials = requeue.latest(self._trials())
        for number, timing in timings.items():
            self.study.set_user_attr(f"{REMEASURED}:{trials[number].number}", asdict(timing))
        ms = {trials[number]._trial_id: timing.ms for number, timing in timings.items() if trials[number].values}
        overwrite_values(self.study, 1 + objectives.costs.index("latency_ms"), ms)
        self.study.set_user_attr(f"{REMEASURED_ON}:{host}", complete)

    def complete_when_remeasured(self, host: str) -> int | None:
        """The number of complete trials when ``host`` last measured latencies again; None if it never did."""
        complete: int | None = self.study.user_attrs.get(f"{REMEASURED_ON}:{host}")
        return complete

    def _remeasured(self) -> dict[str, Any]:
        """The current timings of trials that were measured again, by Optuna's number.

        There is an attribute per trial, so that no worker overwrites what another one writes; older studies have one
        for all trials.
        """
        attributes, start = self.study.user_attrs, f"{REMEASURED}:"
        older: dict[str, Any] = attributes.get(REMEASURED, {}).get("timings", {})
        return older | {name[len(start) :]: value for name, value in attributes.items() if name.startswith(start)}

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
        """Requeue a paused trial, to be resumed from its checkpoint.

        If another worker has resumed it meanwhile, it is queued twice.
        """
        trials = self._trials()
        chain = requeue.chain(trials, self._current(number))
        requeue.requeue(self.study, next(each for each in chain if read_record(each).state == State.PAUSED).number)

    def requeue_interrupted(self) -> None:
        """Requeue the trials that were interrupted and have not been requeued."""
        requeue.requeue_interrupted(self.study)
