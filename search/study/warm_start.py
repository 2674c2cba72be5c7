"""A warm start: begin a study with what another one found."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage

from search.study.records import Objectives, front
from search.study.store import TrialStore
from spaces.dimensions import ConfigError
from spaces.space import Space


def initial_params(storage: BaseStorage, name: str, space: Space, objectives: Objectives) -> list[Mapping[str, Any]]:
    """The parameters of the members of another study's front that this space could draw, the cheapest first.

    Only the parameters are taken: costs are measured and metrics learned again, on this task and this machine.

    Raises:
        ConfigError: there is no such study, or none of its front lies in this space.
    """
    try:
        other = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        there = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise ConfigError(f"warm_start: there is no study {name!r} in this storage; there are {there}") from None
    store = TrialStore(other)
    members = [store.parameters(member.number) for member in front(store.records(), objectives)]
    fitting = [parameters for parameters in members if _fits(parameters, space)]
    if not fitting:
        raise ConfigError(f"warm_start: the front of {name!r} has {len(members)} members, and none lies in this space")
    return list(fitting)


def _fits(parameters: Mapping[str, Any], space: Space) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a value beyond a range is only a warning to Optuna
        try:
            space.suggest(optuna.trial.FixedTrial(dict(parameters)))
        except (ValueError, KeyError, UserWarning):
            return False
    return True
