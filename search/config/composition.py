"""Errors of composing a configuration, which Hydra, OmegaConf and YAML raise in many ways, as messages for users."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    KeyValidationError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from search.config import GROUPS, check_no_password, option_names
from spaces.dimensions import ConfigError

FOLDER_OPTIONS = ("--config-dir", "-cd")
_NAME = re.compile(r"([\"']?)(?!(null|true|false|nan|inf)\b)[a-z_][\w./-]*\1", re.IGNORECASE)
_DETAILS = re.compile(
    r"^(\s*(full_key|object_type|reference_type)\b.*|.* raised while composing config:)\n?", re.MULTILINE
)


def check_command_line(arguments: Sequence[str]) -> None:
    """Check what Hydra does not, or with errors of its own code.

    Raises:
        ConfigError: an argument contains a password, such as ``task=[recall]`` does not choose one option by its name,
            or asks for several runs.
    """
    check_no_password(arguments)
    for argument in arguments:
        group, equals, value = argument.lstrip("+").partition("=")
        if group in GROUPS and equals and not _NAME.fullmatch(value.strip()):
            raise ConfigError(f"{argument}: it must be one name; known: {', '.join(option_names(group))}")
        if argument in ("-m", "--multirun") or group == "hydra.mode":
            raise ConfigError(f"{argument}: a command is one run; for several use a loop of the shell")


def plain(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain values, without interpolations.

    Raises:
        ConfigError: an interpolation cannot be resolved, or a value is missing.
    """
    try:
        tree: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(composition_error(error, ())) from error
    return tree


def composition_error(error: BaseException, arguments: Sequence[str]) -> str:
    """The message for an error of composing the configuration of command-line ``arguments``.

    Of an unknown key one that lists the known keys, of a value that cannot be merged the remedy, of a file that is not
    valid what is wrong with it, else what Hydra or OmegaConf say, with the key first.
    """
    cause: BaseException | None = error
    while cause is not None:
        parent, key = getattr(cause, "parent_node", None), getattr(cause, "full_key", None)
        if isinstance(parent, DictConfig) and key and "not in struct" in str(cause):
            return f"{key}: unknown key; known: {', '.join(map(str, parent))}\nto add it: +{key}=VALUE"
        if "Cannot merge" in str(cause) and not key:
            first, *_ = str(error).partition(": ")
            return f"{first}: a list and a mapping cannot be merged; write the kind of value that the option has"
        if key and "Cannot merge" in str(cause):
            override = str(error).removeprefix("Error merging override ")
            return f"{key}: a list and a mapping cannot be merged\nto replace it as a whole: '~{key}' '+{override}'"
        cause = cause.__cause__
    if isinstance(error, MissingConfigException) and error.options:
        return f"{str(error).splitlines()[0]}; known: {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not KEY=VALUE; put a value with special characters in quotes, as in 'key=\"a b\"'"
    if files := list(invalid_files(arguments)):
        return "\n".join(files)
    if isinstance(error, RecursionError):
        return "a file is among its own defaults, directly or through another; leave it out of the list defaults"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return f"{' '.join(arguments)}: cannot be composed; every KEY must be one that --cfg job shows"
    return _in_one_line(error)


def _in_one_line(error: BaseException) -> str:
    while not str(error).strip() and error.__cause__ is not None:
        error = error.__cause__
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    if not isinstance(error, OmegaConfBaseException):
        return _DETAILS.sub("", str(error)).strip() or first
    place = f"{error.full_key}: " if error.full_key else ""
    if isinstance(error, InterpolationKeyError | UnsupportedInterpolationType):
        return f"{place}{first}; write that of a key, such as ${{seed}}, ${{oc.env:NAME}} or ${{scale:1,2,3}}"
    if isinstance(error, GrammarParseError):
        return f"{place}{first}; write an interpolation such as ${{seed}}, or \\${{ for the characters themselves"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}=???: it must have a value"
    kind, _, reason = first.partition(" raised while resolving interpolation: ")
    if kind == ConfigError.__name__ and reason:  # which names the key that is the cause
        return reason
    reason = reason.strip("'\"") or first
    return f"{place}{reason}"


def invalid_files(arguments: Sequence[str]) -> Iterator[str]:
    """A message for each YAML file of the user's, among those that ``arguments`` name, that cannot be composed."""
    named = {argument.rpartition("=")[2] for argument in arguments}
    for folder in _folders(arguments):
        files = [file for file in sorted(folder.rglob("*.yaml")) if file.is_file()]
        for file in [file for file in files if file.stem in named] or files:
            if problem := _problem(file, folder):
                yield f"{file}: {problem}"


def _folders(arguments: Sequence[str]) -> Iterator[Path]:
    """The folders that the option ``--config-dir`` names."""
    for number, argument in enumerate(arguments, start=1):
        option, equals, value = argument.partition("=")
        if option in FOLDER_OPTIONS:
            yield Path(value if equals else "".join(arguments[number : number + 1]))


def _problem(file: Path, folder: Path) -> str:
    """What is wrong with a YAML file; empty if nothing is."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (UnicodeDecodeError, yaml.reader.ReaderError):
        return "it is no text in UTF-8; write YAML"
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        return f"{line}{error.problem or 'it is not valid YAML'}; write YAML such as model: {{depth: 2}}"
    except RecursionError:
        return "a value contains itself, or is nested too deeply"
    except KeyValidationError:
        return "a key is null or of another type that no key can have; write text"
    except (OSError, OmegaConfBaseException, ValueError, TypeError) as error:
        return _in_one_line(error)
    if content is None:
        return ""
    if not isinstance(content, dict):
        return f"it holds a {'list' if isinstance(content, list) else 'single value'}; it must be a mapping of keys"
    defaults = content.get("defaults", [])
    if not isinstance(defaults, list) or not all(map(_is_default, defaults)):
        return f"defaults={defaults!r}: it must be a list such as [nlp, _self_]"
    own = file.relative_to(folder).with_suffix("")
    if own.name in defaults or f"/{own.as_posix()}" in defaults:
        return f"it is among its own defaults; leave {own.name!r} out of the list"
    return ""


def _is_default(item: Any) -> bool:
    """Whether an item of a list of defaults is ``file`` or ``group: option``, with one option, several or none."""
    if isinstance(item, dict) and len(item) == 1:
        ((group, options),) = item.items()
        names = options if isinstance(options, list) else [options]
        return isinstance(group, str) and all(isinstance(name, str) or name is None for name in names)
    return isinstance(item, str)
