"""From plain values to objects: instantiation of ``_target_`` nodes, and building networks from architectures.

There is no registry: YAML names a class by its import path. Wrong names and arguments raise errors that point to the
place in the YAML and list what is accepted there.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from spaces.architecture import Architecture, describe, key
from spaces.attention import Mechanism, Shape
from spaces.dimensions import ConfigError
from spaces.space import ROLES, Space
from spaces.tasks import Task


def instantiate(node: object, where: str, **given: Any) -> Any:
    """Call the class or function that ``node`` names by ``_target_`` with its other entries and ``given``.

    If the target has a ``config_class``, a dataclass, its fields are entries of ``node`` as well; the target gets them
    as one argument, ``config``.

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
        return target(**arguments, **given)
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
    """The parameters of ``target``, with the fields of its ``config_class``, if any, in place of ``config``."""
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name == "config" and hasattr(target, "config_class"):
            parameters.update(inspect.signature(target.config_class).parameters)
        else:
            parameters[name] = parameter
    return parameters


_BY_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _find(name: str, where: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}: no {name!r}: {error}") from error


def build(architecture: Architecture, task: Task, *, seed: int = 0) -> nn.Module:
    """The network of an architecture, initialised with ``seed``; the state of the global generator is preserved.

    Raises:
        ConfigError: the architecture does not fit the task.
    """
    task = task_of(architecture, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _check_model(architecture, task)
        return _model(architecture, task, lambda name, role: _mechanism(architecture, name, role, task))


def task_of(architecture: Mapping[str, Any], task: Task) -> Task:
    """The task with the settings of the architecture's ``input``.

    Raises:
        ConfigError: a setting is unknown or invalid.
    """
    settings = architecture.get("input") or {}
    check_arguments(task.with_input, settings, "input", name=type(task).__name__)
    try:
        return task.variant(settings)
    except (TypeError, ValueError) as error:
        raise ConfigError("\n".join(f"input: {line}" for line in str(error).splitlines())) from error


def invalid_corners(space: Space, task: Task) -> list[str]:
    """Error messages for the corners of the space that do not fit the task, one per line; empty if all can be built.

    Corners are built on the meta device, where tensors have a shape but no data. Parts that several corners share (a
    mechanism of given sizes, a model with given settings) are built once.
    """
    found: dict[str, None] = {}
    tried: dict[str, Any] = {}

    def attempt(part: str, construct: Callable[[], Any], device: str = "meta") -> Any:
        if part not in tried:
            try:
                with torch.device(device):
                    tried[part] = construct()
            except ConfigError as error:
                tried[part] = None
                found.update(dict.fromkeys(str(error).splitlines()))
        return tried[part]

    # Each construction is called at once, within the iteration that defines it.
    for corner in space.corners():
        given, model = key(corner.get("input") or {}), key(corner["model"])
        fitted = attempt(f"input {given}", lambda: task_of(corner, task), "cpu")  # noqa: B023
        if not fitted or not attempt(f"sizes {given} {model}", lambda: _check_model(corner, fitted)):  # noqa: B023
            continue
        fitting = {
            (name, role): attempt(
                f"{name} {role} {key(corner['attention'][name])} {_shape(corner, fitted, role)}",
                lambda: _mechanism(corner, name, role, fitted),  # noqa: B023
            )
            for role, names in _roles(corner, fitted).items()
            for name in dict.fromkeys(names)
        }
        if None not in fitting.values():
            attempt(f"model {given} {model}", lambda: _model(corner, fitted, lambda *which: fitting[which]))  # noqa: B023
    return list(found) or _failures(space, task)


def _failures(space: Space, task: Task) -> list[str]:
    """Error messages of a forward pass and a prediction per pattern: a mechanism that can be built may fail to run."""
    found = []
    base = task
    for architecture in space.largest():
        task = task_of(architecture, base)
        batch = task.sample()
        expected = [(1, *spec.answer_shape) for spec in (task.spec.subtasks or {"": task.spec}).values()]
        try:
            with torch.inference_mode():
                network = build(architecture, task).eval()
                answers = network(batch)
                task.predict(network, batch)
            given = [tuple(answer.shape) for answer in (answers if isinstance(answers, tuple) else [answers])]
            if given != expected:
                shapes = (", ".join(map(str, each)) for each in (given, expected))
                found.append("{}: its output has shape {}, the task needs {}".format(describe(architecture), *shapes))
        except Exception as error:  # user code may raise anything
            shape = tuple(batch.inputs.shape)
            found.append(f"{describe(architecture)}: fails on an input {shape}: {error!r}")
    return found


def _check_model(architecture: Architecture, task: Task) -> bool:
    if architecture.get("roles") and task.spec.answer_length is None:
        raise ConfigError("roles: they are for tasks whose answer is a sequence of its own, such as translation")
    try:
        _shape(architecture, task)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    return True


def _shape(architecture: Architecture, task: Task, role: str = "") -> Shape:
    """The shape of the mechanisms of a role; see :func:`_roles`."""
    model, spec = architecture["model"], task.spec
    length = -(-spec.length // model.get("stride", 1))
    if role == "decoder":
        length = spec.answer_length or length
    causal = role == "decoder" or (spec.causal and not role)
    return Shape(model.get("width"), model.get("heads"), length, causal)


def _roles(architecture: Architecture, task: Task) -> dict[str, list[str]]:
    """The names of the mechanisms by role, one per block.

    Where a task's answer is a sequence of its own, the model has a causal decoder with cross-attention to the encoder.
    Roles without an entry in ``roles`` use the mechanisms of the encoder, block by block.
    """
    blocks = architecture["pattern"]
    if task.spec.answer_length is None:
        return {"": blocks}
    given = architecture.get("roles", {})
    return {"": blocks, **{role: [given[role]] * len(blocks) if role in given else blocks for role in ROLES}}


def _mechanism(architecture: Architecture, name: str, role: str, task: Task) -> Mechanism:
    where, shape = f"attention.{name}{role and f' as {role}'}", _shape(architecture, task, role)
    mechanism: Mechanism = instantiate(architecture["attention"][name], where, shape=shape)
    try:
        if role == "decoder":
            mechanism.init_cache(1)
        elif role == "cross":
            mechanism.encode_source(torch.zeros(1, 1, shape.width))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return mechanism


def _model(architecture: Architecture, task: Task, mechanism: Callable[[str, str], Mechanism]) -> nn.Module:
    settings = {name: value for name, value in architecture["model"].items() if name not in ("depth", "heads")}
    blocks = {role: [mechanism(name, role) for name in names] for role, names in _roles(architecture, task).items()}
    given = {f"{role}_mechanisms" if role else "mechanisms": blocks[role] for role in blocks}
    network: nn.Module = instantiate(settings, "model", spec=task.spec, **given)
    return network
