"""A store for simulations: one process owns the study, so the record of a trial that has ended is read once."""

from __future__ import annotations

from dataclasses import replace

import optuna
from optuna.trial import TrialState

from search.study.records import Record, State
from search.study.store import TrialStore


class ReplayStore(TrialStore):
    """The trials of a study of this process alone, without measuring again."""

    def __init__(self, study: optuna.Study) -> None:
        super().__init__(study)
        self._records: dict[int, Record] = {}
        self._open: list[int] = []  # Optuna's numbers of trials that have not ended
        self._known = 0

    def all_records(self) -> dict[int, Record]:
        """Every started trial by number, in the order of first starts."""
        trials = self._trials()
        for trial in trials[self._known :]:
            if (number := self.number(trial.number)) != trial.number:  # it is queued again
                self._records[number] = replace(self._records[number], state=State.REPLACED)
            self._open.append(trial.number)
        self._known = len(trials)
        for trial_number in tuple(self._open):
            trial = trials[trial_number]
            if trial.state != TrialState.WAITING:
                number = self.number(trial_number)
                self._records[number] = self._read(trial, number, {})
                if trial.state.is_finished():
                    self._open.remove(trial_number)
        return self._records
