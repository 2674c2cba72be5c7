"""The folder conf/, its options, validation of the composed configuration, and errors of all commands.

Only light imports, so that ``--help`` and errors appear at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from spaces.dimensions import ConfigError

CONF = Path(__file__).parents[1] / "conf"
BAD_INPUT = 2  # exit code; after a signal it is 128 + its number, as shells expect
COSTS = ("latency_ms", "parameters", "flops", "memory_mb")
GROUPS = ("space", "task", "sampler", "pruner", "latency", "storage", "tracking")
KEYS = (
    "study",
    "n_trials",
    "budget",
    "patience",
    "workers",
    "seed",
    "scale",
    "costs",
    "limits",
    "checkpoints",
    "weights_mb",
    "warm_start",
    "baselines",
    "device",
    "precision",
    "compile",
)


def refuse(error: object) -> int:
    """Print an error of the user's input; return the exit code."""
    print(error, file=sys.stderr)  # noqa: T201
    return BAD_INPUT


_NO_NAME = re.compile(r"\s*([\[{]|$)|(null|true|false|-?[\d.]+)\s*$", re.IGNORECASE)
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"(?:({_NUMBER})h)?(?:({_NUMBER})min)?(?:({_NUMBER})s)?")


def parse_duration(value: object, name: str) -> float:
    """Seconds of a duration such as ``90s``, ``10min``, ``2h`` or ``1h30min``; a plain number is seconds.

    Args:
        value: the duration.
        name: of the key, for messages.

    Raises:
        ConfigError: ``value`` is not a duration above 0.
    """
    text = str(value).replace(" ", "")
    match = _DURATION.fullmatch(f"{text}s" if re.fullmatch(_NUMBER, text) else text)
    counts = match.groups() if match else ()
    seconds = sum(float(count or 0) * unit for count, unit in zip(counts, (3600, 60, 1), strict=False))
    if not seconds > 0:
        expected = "a duration such as 90s, 10min, 2h or 1h30min, or a number of seconds"
        raise ConfigError(f"{name}={value!r}: it must be {expected}")
    return seconds


def _duration_problems(value: object, name: str) -> list[str]:
    try:
        parse_duration(value, name)
    except ConfigError as error:
        return [str(error)]
    return []


def hide_passwords(text: str) -> str:
    """``text`` with the password of every URL in it replaced: ``postgresql://me:***@host/db``."""
    return re.sub(r"(://[^/:@\s]*):[^@\s]*@", r"\1:***@", text)


def default_storage() -> str:
    """The default URL of the studies' database, that of conf/storage/sqlite.yaml."""
    return str(OmegaConf.select(OmegaConf.load(CONF / "storage" / "sqlite.yaml"), "url"))


def options(group: str) -> dict[str, dict[str, Any]]:
    """The options of a config group by name, as plain values."""
    files = sorted((CONF / group).glob("*.yaml"))
    return {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in files}  # type: ignore[misc]


def check_choices(arguments: Sequence[str]) -> None:
    """Raise :class:`ConfigError` if a command-line argument such as ``task=[recall]`` does not choose one option.

    Hydra chooses by names, and fails on other values with errors of its own code.
    """
    for argument in arguments:
        group, equals, value = argument.lstrip("+").partition("=")
        if group in GROUPS and equals and _NO_NAME.match(value):
            known = ", ".join(sorted(file.stem for file in (CONF / group).glob("*.yaml")))
            raise ConfigError(f"{argument}: it must be one name; known: {known}")


def validate_config(config: Mapping[str, Any]) -> None:
    """Check keys and ranges of the values.

    Raises:
        ConfigError: with a line for each invalid or unknown key.
    """
    problems = [
        f"unknown key {name!r}; known: {', '.join((*GROUPS, *KEYS))}" for name in config if name not in (*GROUPS, *KEYS)
    ]
    if not isinstance(config.get("baselines", True), bool):
        problems.append(f"baselines={config['baselines']!r}: it must be true or false")
    n_trials, seed, costs, limits = (config[name] for name in ("n_trials", "seed", "costs", "limits"))
    if n_trials not in (None, "auto") and (isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1):
        expected = "a whole number from 1, auto, or null for every architecture once"
        problems.append(f"n_trials={n_trials!r}: it must be {expected}")
    budget, patience = config.get("budget"), config.get("patience")
    if budget is not None:
        problems += _duration_problems(budget, "budget")
    if isinstance(patience, str):
        problems += _duration_problems(patience, "patience")
    elif patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
        problems.append(f"patience={patience!r}: it must be a number of trials from 1, or a duration such as 5min")
    workers = config.get("workers", "auto")
    if workers != "auto" and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        problems.append(f"workers={workers!r}: it must be a whole number from 1, or auto")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"seed={seed!r}: it must be a whole number from 0")
    if not isinstance(costs, Sequence) or isinstance(costs, str) or not costs or len(set(costs)) < len(costs):
        problems.append(f"costs={costs!r}: it must be a list of distinct costs such as [latency_ms]")
    else:
        problems += [f"costs: unknown cost {name!r}; known: {', '.join(COSTS)}" for name in costs if name not in COSTS]
    for name in ("study", "checkpoints", "warm_start"):
        if not isinstance(config.get(name, ""), str | None):
            problems.append(f"{name}={config[name]!r}: it must be text, in quotes if it looks like a number or a list")
    weights_mb = config.get("weights_mb")
    if weights_mb is not None and (isinstance(weights_mb, bool) or not isinstance(weights_mb, int | float)):
        problems.append(f"weights_mb={weights_mb!r}: it must be a number of megabytes, or null for no limit")
    elif weights_mb is not None and not weights_mb >= 0:
        problems.append(f"weights_mb={weights_mb!r}: it must be at least 0")
    if not isinstance(limits, Mapping):
        problems.append(f"limits={limits!r}: it must be a mapping of costs such as {{latency_ms: 2.0}}")
        limits = {}
    for name, limit in limits.items():
        if name not in COSTS:
            problems.append(f"limits: unknown cost {name!r}; known: {', '.join(COSTS)}")
        elif limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0):
            problems.append(f"limits.{name}={limit!r}: it must be a number above 0, or null for no limit")
    if problems:
        raise ConfigError("\n".join(problems))
