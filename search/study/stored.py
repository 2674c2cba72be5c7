"""A study as it is stored, for commands that have no configuration."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.storages import BaseStorage

from search.study.records import Objectives
from search.study.storage import load_study
from search.study.store import TrialStore


@dataclass(frozen=True)
class StoredStudy:
    """A study with its objectives and the dotted names of its dimensions."""

    store: TrialStore
    objectives: Objectives
    dimensions: set[str]


def load_stored(storage: BaseStorage, name: str) -> StoredStudy:
    """Load a study that ``search.run`` has created.

    Raises:
        ConfigError: there is none of that name, or it was not created by ``search.run``.
    """
    from spaces.instantiate import instantiate  # needs torch, as below
    from spaces.space import Space
    from spaces.tasks import Task

    store = TrialStore(load_study(storage, name))
    identity, ceilings = store.identity(), store.ceilings()
    objectives = Objectives.of(instantiate(Task, identity["task"], "task"), identity["costs"], ceilings)
    return StoredStudy(store, objectives, Space(identity["space"]).dimension_names())
