"""Optuna's storage in a database, with a faster method to read trials that takes their memory alone.

Optuna reads them as objects of SQLAlchemy, one for each row: these take ten times the computing time and, as all trials
are read at once and their memory is not given back, three times the memory. Here the rows are read page by page.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from search.study.set_once import SetOnceStorage

PAGE = 250  # trials
MAX_INCLUDED = 500  # ids in one condition, of which databases accept only so many
CHILDREN: dict[Any, tuple[str, ...]] = {  # the tables of a trial's fields, and their columns
    models.TrialValueModel: ("objective", "value", "value_type"),
    models.TrialParamModel: ("param_id", "param_name", "param_value", "distribution_json"),
    models.TrialUserAttributeModel: ("key", "value_json"),
    models.TrialSystemAttributeModel: ("key", "value_json"),
    models.TrialIntermediateValueModel: ("step", "intermediate_value", "intermediate_value_type"),
}
distribution_of = lru_cache(maxsize=1024)(json_to_distribution)


class PagedStorage(SetOnceStorage):
    """See :class:`optuna.storages.RDBStorage`."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """See Optuna: the trials with these ids, and all after ``trial_id_greater_than``."""
        table = models.TrialModel.__table__.c
        included = sorted(each for each in included_trial_ids if each <= trial_id_greater_than)
        if len(included) > MAX_INCLUDED:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        chosen = (table.trial_id > trial_id_greater_than) | table.trial_id.in_(included)
        columns = (table.trial_id, table.number, table.state, table.datetime_start, table.datetime_complete)
        query = sqlalchemy.select(*columns).where((table.study_id == study_id) & chosen).order_by(table.trial_id)
        with self.engine.connect() as connection:
            rows = [row for row in connection.execute(query) if states is None or row.state in states]
            pages = (rows[first : first + PAGE] for first in range(0, len(rows), PAGE))
            trials = [trial for page in pages for trial in _read(connection, page)]
        # Of none, Optuna checks whether the study exists.
        return trials or super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)


def _read(connection: sqlalchemy.Connection, rows: Sequence[Any]) -> Iterable[FrozenTrial]:
    """The trials of these rows of their table."""
    found = []
    for model, names in CHILDREN.items():
        table = model.__table__.c
        children: defaultdict[int, list[Any]] = defaultdict(list)
        query = sqlalchemy.select(table.trial_id, *(table[name] for name in names))
        for trial_id, *fields in connection.execute(query.where(table.trial_id.in_([row.trial_id for row in rows]))):
            children[trial_id].append(fields)
        found.append(children)
    for row in rows:
        values, params, user_attrs, system_attrs, intermediate = (children[row.trial_id] for children in found)
        distributions = {name: (value, distribution_of(text)) for _, name, value, text in sorted(params)}
        yield FrozenTrial(
            number=row.number,
            state=row.state,
            value=None,
            values=_values(values),
            datetime_start=local_time(row.datetime_start),
            datetime_complete=local_time(row.datetime_complete),
            params={name: kind.to_external_repr(value) for name, (value, kind) in distributions.items()},
            distributions={name: kind for name, (_, kind) in distributions.items()},
            user_attrs={key: json.loads(text) for key, text in user_attrs},
            system_attrs={key: json.loads(text) for key, text in system_attrs},
            intermediate_values={
                step: models.TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kind)
                for step, value, kind in intermediate
            },
            trial_id=row.trial_id,
        )


def local_time(stored: datetime | None) -> datetime | None:
    """A time as Optuna's trials have it; stored are times in UTC, both without a time zone."""
    return stored and stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _values(rows: Sequence[Any]) -> list[float] | None:
    """The objectives' values in their order; None if there are none."""
    read = models.TrialValueModel.stored_repr_to_value
    return [read(value, kind) for _, value, kind in sorted(rows, key=lambda row: row[0])] or None
