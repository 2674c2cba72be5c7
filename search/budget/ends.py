"""What ends a run by its configuration: a number of trials, a time budget, patience; and its first trials."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from search.budget.patience import Patience
from search.config import parse_duration
from spaces.space import Space

DEFAULT_TRIALS = 36  # n_trials=auto without budget and patience


def budget_of(config: Mapping[str, Any]) -> float:
    """Seconds of the time budget; infinite if there is none."""
    return math.inf if config["budget"] is None else parse_duration(config["budget"], "budget")


def planned_trials(config: Mapping[str, Any], space: Space) -> tuple[int | None, Sequence[Mapping[str, Any]]]:
    """The total of trials, None for no limit, and the parameters of the first ones."""
    if config["n_trials"] is None:
        every = list(space.grid())
        random.Random(config["seed"]).shuffle(every)  # an interrupted run then has a random subset
        return len(every), every
    # The smallest architecture of each mechanism is fast to train and is at the cheap end of the front.
    first = list(space.smallest())
    if "checkpoint" in space.model:  # the whole network is likely to be at the other end
        first.insert(0, next(space.smallest(largest=True)))
    if config["n_trials"] == "auto":
        limited = any(config[name] is not None for name in ("budget", "patience", "min_gain"))
        return (None if limited else DEFAULT_TRIALS), first
    return config["n_trials"], first


def describe_ends(config: Mapping[str, Any], n_trials: int | None) -> str:
    """What ends the run, and the number of workers: ``36 trials, 10min, 2 workers``."""
    parts = [] if n_trials is None else [f"{n_trials} trials"]
    parts += [str(config["budget"])] if config["budget"] is not None else []
    parts += [f"{name}={config[name]}" for name in ("patience", "min_gain") if config[name] is not None]
    return ", ".join([*parts, *([f"{config['workers']} workers"] if config["workers"] > 1 else [])])


def patience_of(config: Mapping[str, Any]) -> Patience | None:
    """The patience of a run; None if it has none."""
    value, min_gain = config["patience"], config["min_gain"]
    if value is None and min_gain is None:
        return None
    trials = value if isinstance(value, int) else None
    seconds = parse_duration(value, "patience") if isinstance(value, str) else None
    return Patience(trials, seconds, min_gain)
