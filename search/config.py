"""Where the configuration lives, which options it has, and the check of what a command line composed to.

Read by every command; nothing heavy is imported here, so that help and errors answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from spaces.dimensions import ConfigError

CONF = Path(__file__).parents[1] / "conf"
BAD_INPUT = 2  # exit code; Ctrl-C and SIGTERM end with 128 + the signal's number, as shells expect
COSTS = ("latency_ms", "parameters", "flops", "memory_mb")
GROUPS = ("space", "task", "sampler", "pruner", "latency", "storage", "tracking")
KEYS = ("study", "n_trials", "seed", "costs", "limits", "checkpoints", "warm_start")


def refuse(error: object) -> int:
    """Print what is wrong with the input; the exit code of bad input."""
    print(error, file=sys.stderr)  # noqa: T201
    return BAD_INPUT


def default_storage() -> str:
    """The URL of the database that holds the studies unless a run names another."""
    return str(OmegaConf.select(OmegaConf.load(CONF / "storage" / "sqlite.yaml"), "url"))


def options(group: str) -> dict[str, dict[str, Any]]:
    """The options of a configuration group by name, as plain values."""
    files = sorted((CONF / group).glob("*.yaml"))
    return {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in files}  # type: ignore[misc]


def validate_config(config: Mapping[str, Any]) -> None:
    """Refuse unknown keys and values out of range, all at once."""
    problems = [
        f"{name}: unknown; there are {', '.join((*GROUPS, *KEYS))}" for name in config if name not in (*GROUPS, *KEYS)
    ]
    n_trials, seed, costs, limits = (config[name] for name in ("n_trials", "seed", "costs", "limits"))
    if n_trials is not None and (isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1):
        problems.append(f"n_trials: {n_trials!r}; write a whole number from 1, or null for every architecture once")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"seed: {seed!r}; write a whole number from 0")
    if not isinstance(costs, Sequence) or isinstance(costs, str) or not costs or len(set(costs)) < len(costs):
        problems.append(f"costs: {costs!r}; write a list such as [latency_ms]")
    else:
        problems += [f"costs: {name!r} is none; there are {', '.join(COSTS)}" for name in costs if name not in COSTS]
    for name, limit in limits.items():
        if name not in COSTS:
            problems.append(f"limits.{name}: no such cost; there are {', '.join(COSTS)}")
        elif limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0):
            problems.append(f"limits.{name}: {limit!r}; write a number above 0, or null for no limit")
    if problems:
        raise ConfigError("\n".join(problems))
