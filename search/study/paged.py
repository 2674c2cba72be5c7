"""Optuna's storage in a database that reads a study page by page, so that it takes the memory of the trials alone.

Optuna reads all trials by one query. SQLAlchemy's objects for their rows take three times the memory of the trials, and
lie between these, so that the process keeps it after they are gone.
"""

from __future__ import annotations

import sys
from collections.abc import Container

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

PAGE = 250  # trials


class PagedStorage(RDBStorage):
    """See :class:`optuna.storages.RDBStorage`."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """See Optuna: the trials with these ids and all later ones. Those created meanwhile are read the next time."""
        read = super()._get_trials
        if trial_id_greater_than > -1:  # not the first time: there are few
            return read(study_id, states, included_trial_ids, trial_id_greater_than)
        column = models.TrialModel.trial_id
        chosen = sqlalchemy.select(column).where(models.TrialModel.study_id == study_id).order_by(column)
        with self.engine.connect() as connection:
            ids = list(connection.execute(chosen).scalars())
        if len(ids) <= PAGE:  # of none Optuna checks whether the study exists
            return read(study_id, states, included_trial_ids, trial_id_greater_than)
        pages = (set(ids[first : first + PAGE]) for first in range(0, len(ids), PAGE))
        return [trial for page in pages for trial in read(study_id, states, page, sys.maxsize)]
