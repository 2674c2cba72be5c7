"""Warm start: queue the architectures on the front of another study first."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage

from search.study.records import Objectives, front
from search.study.storage import load_study
from search.study.store import TrialStore
from spaces.dimensions import ConfigError
from spaces.space import Space


def initial_params(storage: BaseStorage, name: str, space: Space, objectives: Objectives) -> list[Mapping[str, Any]]:
    """The parameters of the front of another study that are valid in this space, the cheapest first.

    Only parameters are copied: the architectures are measured and trained again, on this task and this machine.

    Raises:
        ConfigError: there is no such study, or nothing on its front is in this space.
    """
    store = TrialStore(load_study(storage, name))
    members = [store.parameters(member.number) for member in front(store.records(), objectives)]
    valid = [parameters for parameters in members if _is_valid(parameters, space)]
    if not valid:
        raise ConfigError(f"none of the {len(members)} trials on the front of {name!r} is in this space")
    return list(valid)


def _is_valid(parameters: Mapping[str, Any], space: Space) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # for a value out of range Optuna only warns
        try:
            space.suggest(optuna.trial.FixedTrial(dict(parameters)))
        except (ValueError, KeyError, UserWarning):
            return False
    return True
