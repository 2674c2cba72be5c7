"""The folder conf/, its options, durations, passwords, and errors of all commands.

:mod:`search.config.composition` turns errors of composing a configuration into messages,
:mod:`search.config.schema` validates the composed one. Only light imports, so
that ``--help`` and errors appear at once.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from omegaconf import OmegaConf

from spaces.dimensions import ConfigError

CONF = Path(__file__).parents[2] / "conf"
BAD_INPUT = 2  # exit code; after a signal it is 128 + its number, as shells expect


class CostText(NamedTuple):
    """How a cost is called: in a sentence, in the head of a column, and on an axis."""

    words: str
    title: str
    axis: str


COSTS = {
    "latency_ms": CostText("latency", "ms", "latency (ms)"),
    "parameters": CostText("number of parameters", "parameters", "parameters"),
    "flops": CostText("FLOPs", "FLOPs", "FLOPs"),
    "memory_mb": CostText("memory", "MB", "peak memory (MB)"),
    "training_mb": CostText("memory of training", "MB", "peak memory of a training step (MB)"),
    "state_mb": CostText("state of decoding", "MB", "state of decoding after the last token (MB)"),
    "nonzero": CostText("number of parameters that are not 0", "non-zero", "parameters that are not 0"),
    "file_mb": CostText("size of the weights", "MB", "weights (MB)"),
    "energy_mj": CostText("energy", "mJ", "energy of a prediction (mJ)"),
}
Output = Literal["quiet", "text", "verbose", "json"]  # how much a run prints
OUTPUTS = get_args(Output)
GROUPS = ("space", "task", "sampler", "pruner", "latency", "storage", "tracking")


def refuse(error: object) -> int:
    """Print an error of the user's input without passwords; return the exit code."""
    print(hide_passwords(str(error)), file=sys.stderr)  # noqa: T201
    return BAD_INPUT


DURATION = "a duration such as 90s, 10min, 2h or 1h30min, or a number of seconds"
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
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{name}={value!r}: it must be {DURATION}")
    return seconds


_PASSWORDS = (
    re.compile(r"(://[^/:@\s]*:)[^\s\"'<>]*(?=@)"),  # ://me:secret@; up to the last @, as a password may contain one
    re.compile(r"((?:[?&]|\b)(?:\w*passw(?:or)?d|pwd|passphrase|\w*secret\w*|\w*token)=)[^&\s\"'<>]+", re.IGNORECASE),
)


def hide_passwords(text: str) -> str:
    """``text`` with the passwords in URLs replaced: ``postgresql://me:***@host/db?password=***``."""
    for pattern in _PASSWORDS:
        text = pattern.sub(r"\1***", text)
    return text


def add_storage_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--storage`` of a command that reads studies; without it :func:`default_storage` is meant."""
    parser.add_argument(
        "--storage",
        metavar="URL",
        type=without_password,
        help="of the database; by default PARETOFORMER_STORAGE, or else that of conf/storage/sqlite.yaml",
    )


def without_password(argument: str) -> str:
    """``argument`` of a command line, which is refused if it contains a password."""
    try:
        check_no_password([argument])
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return argument


def default_storage() -> str:
    """The URL of the studies' database: the environment's PARETOFORMER_STORAGE, or that of conf/storage/sqlite.yaml."""
    return os.environ.get("PARETOFORMER_STORAGE") or str(
        OmegaConf.select(OmegaConf.load(CONF / "storage" / "sqlite.yaml"), "url")
    )


def options(group: str) -> dict[str, dict[str, Any]]:
    """The options of a config group by name, as plain values."""
    files = sorted((CONF / group).glob("*.yaml"))
    return {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in files}  # type: ignore[misc]


def option_names(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def check_no_password(arguments: Sequence[str]) -> None:
    """Raise :class:`ConfigError` if a command-line argument contains a password: all users of the machine see it."""
    for argument in arguments:
        if (hidden := hide_passwords(argument)) != argument:
            raise ConfigError(
                f"{hidden}: a command line is no place for a password, as other users of the machine can read it; "
                "set PGPASSWORD, write it to ~/.pgpass, or set the whole URL as PARETOFORMER_STORAGE"
            )
