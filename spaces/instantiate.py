"""From plain values to objects: instantiation of ``_target_`` nodes.

There is no registry: YAML names a class by its import path. Wrong names and arguments raise errors that point to the
place in the YAML and list what is accepted there.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from spaces.dimensions import ConfigError


def instantiate(node: object, where: str, **given: Any) -> Any:
    """Call the class or function that ``node`` names by ``_target_`` with its other entries and ``given``.

    If the target has a ``config_class``, a dataclass, its fields are entries of ``node`` as well; the target gets them
    as one argument, ``config``. If it has a method ``configure``, its arguments are entries of ``node`` too; it is
    called with them after construction.

    Args:
        node: plain values; entries besides ``_target_`` are keyword arguments.
        where: the place in the YAML, for messages.
        given: arguments that do not come from the YAML.

    Raises:
        ConfigError: there is no such object, an argument is unknown or missing, or the target raised ``ValueError``.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{where}: names no class; write _target_: package.module.Class")
    target = _find(node["_target_"], where)
    arguments = {name: _instantiated(value, f"{where}.{name}") for name, value in node.items() if name != "_target_"}
    check_arguments(target, arguments, where, given=given)
    try:
        if config_class := getattr(target, "config_class", None):
            fields = [name for name in inspect.signature(config_class).parameters if name in arguments]
            arguments["config"] = config_class(**{name: arguments.pop(name) for name in fields})
        later = {name: arguments.pop(name) for name in _configurable(target) if name in arguments}
        made = target(**arguments, **given)
        if later:
            made.configure(**later)
        return made
    except (TypeError, ValueError) as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error


def _instantiated(node: object, where: str) -> Any:
    """``node`` with all nested ``_target_`` nodes instantiated."""
    if not isinstance(node, Mapping):
        return node
    if "_target_" in node:
        return instantiate(node, where)
    return {name: _instantiated(value, f"{where}.{name}") for name, value in node.items()}


def check_arguments(
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    where: str,
    *,
    given: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Raise :class:`ConfigError`, with ``name``, unless ``target`` can be called with ``arguments`` and ``given``."""
    given, owner = given or {}, name or target.__name__
    parameters = _parameters(target)
    takes = [name for name, parameter in parameters.items() if name not in given and parameter.kind in _BY_KEYWORD]
    accepted = ", ".join(takes) or "no settings"
    problems = [
        f"{where}: {owner} does not take {name!r}; it takes {accepted}" for name in arguments if name not in takes
    ]
    problems += [
        f"{where}.{name}: missing; {owner} takes {accepted}"
        for name in takes
        if parameters[name].default is inspect.Parameter.empty and name not in arguments
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of ``target``, with the fields of its ``config_class``, if any, in place of ``config``.

    Those of its method ``configure``, if any, come last.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name == "config" and hasattr(target, "config_class"):
            parameters.update(inspect.signature(target.config_class).parameters)
        else:
            parameters[name] = parameter
    return parameters | _configurable(target)


def _configurable(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of the method ``configure``, without those that the constructor has as well."""
    if not hasattr(target, "configure"):
        return {}
    own = inspect.signature(target).parameters
    found = list(inspect.signature(target.configure).parameters.items())[1:]  # without self
    return {name: parameter for name, parameter in found if name not in own}


_BY_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _find(name: str, where: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}: no {name!r}: {error}") from error
