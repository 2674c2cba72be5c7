"""From plain values to objects: instantiation of ``_target_`` nodes.

There is no registry: YAML names a class by its import path. Importing it runs the code of its module; nothing is called
unless it is a subclass of what belongs in that place. Wrong names, arguments and types of values raise errors that
point to the place in the YAML and list what is accepted there.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from spaces.dimensions import ConfigError
from spaces.schema import classes_in, expected, parameters_of, shown, wrong_type

T = TypeVar("T")


def instantiate(kind: type[T], node: object, where: str, **given: Any) -> T:
    """Construct the class that ``node`` names by ``_target_`` with its other entries and ``given``.

    If the class has a ``config_class``, a dataclass, its fields are entries of ``node`` as well; the class gets them
    as one argument, ``config``. If it has a method ``configure``, its arguments are entries of ``node`` too; it is
    called with them after construction.

    Args:
        kind: what the class must be a subclass of.
        node: plain values; entries besides ``_target_`` are keyword arguments. An argument may be such a node itself
            if its annotation names a class, which is then its kind.
        where: the place in the YAML, for messages.
        given: arguments that do not come from the YAML.

    Raises:
        ConfigError: there is no such class, an argument is unknown or missing, a value has another type than its
            annotation, or the class raised ``ValueError``.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{where}: names no class; write _target_: package.module.Class")
    target = _find(kind, node["_target_"], where)
    settings = {name: value for name, value in node.items() if name != "_target_"}
    check_arguments(target, settings, where, given=given)
    parameters = _parameters(target)
    arguments = {name: _instantiated(settings[name], f"{where}.{name}", parameters[name]) for name in settings}
    try:
        if config_class := getattr(target, "config_class", None):
            fields = [name for name in inspect.signature(config_class).parameters if name in arguments]
            arguments["config"] = config_class(**{name: arguments.pop(name) for name in fields})
        later = {name: arguments.pop(name) for name in _configurable(target) if name in arguments}
        made = target(**arguments, **given)
        if later:
            made.configure(**later)  # type: ignore[attr-defined]
        return made
    except (TypeError, ValueError) as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error


def _instantiated(node: object, where: str, parameter: inspect.Parameter) -> Any:
    """``node`` with all nested ``_target_`` nodes instantiated."""
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        return {name: _instantiated(value, f"{where}.{name}", parameter) for name, value in node.items()}
    kinds = list(classes_in(parameter.annotation))
    if not kinds:
        raise ConfigError(f"{where}: names a class by _target_, and its annotation accepts none")
    return instantiate(kinds[0], node, where)


def check_arguments(
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    where: str,
    *,
    given: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Check that ``target``, called ``name``, can be called with ``arguments`` from YAML and those ``given``.

    Raises:
        ConfigError: with a line for each argument that is unknown, missing, or of another type than its annotation.
    """
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
    for name, value in arguments.items():
        if name not in takes:
            continue
        annotation = parameters[name].annotation
        if _has_target(value) and any(classes_in(annotation)):  # instantiate() constructs it
            continue
        if wrong_type(value, annotation):
            named = f"{name}: names a class" if _has_target(value) else f"{name}={shown(value)}"
            problems.append(f"{where}: {named}: it must be {expected(annotation)}")
    if problems:
        raise ConfigError("\n".join(problems))


def _has_target(node: object) -> bool:
    """Whether a node or one below it names a class."""
    return isinstance(node, Mapping) and ("_target_" in node or any(map(_has_target, node.values())))


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of ``target``, with the fields of its ``config_class``, if any, in place of ``config``.

    Those of its method ``configure``, if any, come last.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in parameters_of(target).items():
        if name == "config" and hasattr(target, "config_class"):
            parameters.update(parameters_of(target.config_class))
        else:
            parameters[name] = parameter
    return parameters | _configurable(target)


def _configurable(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of the method ``configure``, without those that the constructor has as well."""
    if not hasattr(target, "configure"):
        return {}
    own = inspect.signature(target).parameters
    found = list(parameters_of(target.configure).items())[1:]  # without self
    return {name: parameter for name, parameter in found if name not in own}


_BY_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _find(kind: type[T], name: str, where: str) -> type[T]:
    wanted = f"it must be a subclass of {kind.__module__}.{kind.__qualname__}"
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = f" ({error})" if isinstance(error, ImportError) else ""
        raise ConfigError(f"{where}: no {name!r}{reason}; {wanted}") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"{where}: _target_={name!r}: {wanted}")
    return found
