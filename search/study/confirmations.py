"""Repeated trainings of trials, stored in their study.

There is an attribute per trial and seed, so that no command overwrites what another one writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import optuna

_NAME = re.compile(r"confirmed:(\d+):(\d+)")


@dataclass(frozen=True)
class Repetition:
    """The metrics of a training by name."""

    validation: Mapping[str, float]
    test: Mapping[str, float]


def read_repetitions(study: optuna.Study) -> dict[int, dict[int, Repetition]]:
    """The repetitions of each trial by seed."""
    found: dict[int, dict[int, Repetition]] = {}
    for name, value in study.user_attrs.items():
        if match := _NAME.fullmatch(name):
            number, seed = map(int, match.groups())
            found.setdefault(number, {})[seed] = Repetition(**value)
    return {number: dict(sorted(by_seed.items())) for number, by_seed in found.items()}


def write_repetition(study: optuna.Study, number: int, seed: int, repetition: Repetition) -> None:
    """Store the repetition of a trial with a seed."""
    study.set_user_attr(f"confirmed:{number}:{seed}", asdict(repetition))
