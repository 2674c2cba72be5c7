"""Add trials that have ended to a study, by a few statements for all instead of a transaction for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

BATCH = 500  # trials of a transaction


def add_trials(study: optuna.Study, trials: Iterable[FrozenTrial]) -> None:
    """Add trials with objective values, parameters and attributes to a study that no other process changes.

    To Optuna's own tables where its storage is a database; elsewhere one by one.
    """
    backend = getattr(study._storage, "_backend", study._storage)
    if not isinstance(backend, RDBStorage):
        study.add_trials(trials)
        return
    remaining = iter(trials)
    while batch := list(islice(remaining, BATCH)):
        with backend.engine.begin() as connection:
            _insert(connection, study._study_id, batch)


def _insert(connection: sqlalchemy.Connection, study_id: int, trials: Iterable[FrozenTrial]) -> None:
    table = models.TrialModel.__table__
    of_study = table.c.study_id == study_id
    first = connection.execute(sqlalchemy.select(sqlalchemy.func.count()).where(of_study)).scalar_one()
    numbered = dict(enumerate(trials, start=first))
    rows = [
        {
            "number": number,
            "study_id": study_id,
            "state": trial.state,
            "datetime_start": _utc(trial.datetime_start),
            "datetime_complete": _utc(trial.datetime_complete),
        }
        for number, trial in numbered.items()
    ]
    connection.execute(sqlalchemy.insert(table), rows)
    chosen = sqlalchemy.select(table.c.number, table.c.trial_id).where(of_study & (table.c.number >= first))
    ids = {row.number: row.trial_id for row in connection.execute(chosen)}
    for model, described in ROWS.items():
        rows = [{"trial_id": ids[number], **row} for number, trial in numbered.items() for row in described(trial)]
        if rows:
            connection.execute(sqlalchemy.insert(model.__table__), rows)


def _utc(local: datetime | None) -> datetime | None:
    return local and local.astimezone(UTC).replace(tzinfo=None)


def _values(trial: FrozenTrial) -> Iterator[dict[str, Any]]:
    for objective, value in enumerate(trial.values or ()):
        yield {"objective": objective, "value": value, "value_type": models.TrialValueModel.TrialValueType.FINITE}


def _parameters(trial: FrozenTrial) -> Iterator[dict[str, Any]]:
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield {
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }


def _attributes(attributes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in attributes.items():
        yield {"key": key, "value_json": json.dumps(value)}


ROWS: dict[Any, Any] = {
    models.TrialValueModel: _values,
    models.TrialParamModel: _parameters,
    models.TrialUserAttributeModel: lambda trial: _attributes(trial.user_attrs),
    models.TrialSystemAttributeModel: lambda trial: _attributes(trial.system_attrs),
}
