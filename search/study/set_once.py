"""Attributes of a study that are set once: of workers that start at the same time, the value of the first one stays.

Optuna's storages replace an attribute that another worker has set since it was read. So each worker would go on with
a value of its own, such as the id by which it finds the study's runs in MLflow.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

SET_ONCE = frozenset({"baselines", "ceilings", "data", "epochs", "hardware", "id", "identity", "replacements"})


class SetOnceStorage(RDBStorage):
    """See :class:`optuna.storages.RDBStorage`; attributes of studies in ``SET_ONCE`` are not replaced."""

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See Optuna."""
        if key not in SET_ONCE:
            super().set_study_user_attr(study_id, key, value)
            return
        row = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
        with suppress(sqlalchemy.exc.IntegrityError), self.engine.begin() as connection:  # the two are unique
            connection.execute(sqlalchemy.insert(models.StudyUserAttributeModel).values(row))
