"""From plain values to objects: the one gate through which every ``_target_`` passes.

Naming a class in YAML is all the registration there is. The gate turns what Python would say about a wrong name or a
wrong argument into the words of the person who wrote the YAML.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from spaces.architecture import Architecture, describe, key
from spaces.attention import Mechanism
from spaces.dimensions import ConfigError
from spaces.space import ROLES, Space
from spaces.tasks import Task


def instantiate(node: object, where: str, **given: Any) -> Any:
    """Call the class or function that ``node`` names by ``_target_`` with its other entries and ``given``.

    Args:
        node: plain values; entries besides ``_target_`` are keyword arguments.
        where: the place in the YAML, for messages.
        given: arguments that the user doesn't write.

    Raises:
        ConfigError: no such object, an argument it doesn't take or lacks, or its own refusal of the values.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{where}: names no class; write _target_: package.module.Class")
    target = _find(node["_target_"], where)
    arguments = {name: _instantiated(value, f"{where}.{name}") for name, value in node.items() if name != "_target_"}
    check_arguments(target, arguments, where, given=given)
    try:
        return target(**arguments, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error


def _instantiated(node: object, where: str) -> Any:
    """``node`` with all that names a class within it constructed."""
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
) -> None:
    """Raise :class:`ConfigError` unless ``target`` can be called with ``arguments`` and ``given``."""
    given = given or {}
    parameters = inspect.signature(target).parameters
    takes = [name for name, parameter in parameters.items() if name not in given and parameter.kind in _BY_KEYWORD]
    accepted = ", ".join(takes) or "no settings"
    problems = [
        f"{where}: {target.__name__} does not take {name!r}; it takes {accepted}"
        for name in arguments
        if name not in takes
    ]
    problems += [
        f"{where}.{name}: missing; {target.__name__} takes {accepted}"
        for name in takes
        if parameters[name].default is inspect.Parameter.empty and name not in arguments
    ]
    if problems:
        raise ConfigError("\n".join(problems))


_BY_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _find(name: str, where: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}: no {name!r}: {error}") from error


def build(architecture: Architecture, task: Task, *, seed: int = 0) -> nn.Module:
    """The network of an architecture, its weights drawn from ``seed``; the global generator is left as it was.

    Raises:
        ConfigError: the architecture does not fit the task.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _check_model(architecture, task)
        return _model(architecture, task, lambda name, role: _mechanism(architecture, name, role, task))


def invalid_corners(space: Space, task: Task) -> list[str]:
    """What is wrong with the corners of the space for this task, a line each; empty if every one can be built.

    Corners are built on the meta device, where a tensor has a shape and no memory. A part that several corners share
    (a mechanism at given sizes, a model around it) is built once.
    """
    found: dict[str, None] = {}
    tried: dict[str, Any] = {}

    def attempt(part: str, construct: Callable[[], Any]) -> Any:
        if part not in tried:
            try:
                tried[part] = construct()
            except ConfigError as error:
                tried[part] = None
                found.update(dict.fromkeys(str(error).splitlines()))
        return tried[part]

    with torch.device("meta"):
        for corner in space.corners():
            model = corner["model"]
            if not attempt(f"sizes {key(model)}", lambda: _check_model(corner, task)):  # noqa: B023, called at once
                continue
            sizes = key({name: model.get(name) for name in ("width", "heads")})
            fitting = {
                (name, role): attempt(
                    f"{name} {role} {key(corner['attention'][name])} {sizes}",
                    lambda: _mechanism(corner, name, role, task),  # noqa: B023
                )
                for role, names in _roles(corner, task).items()
                for name in dict.fromkeys(names)
            }
            if None not in fitting.values():
                attempt(f"model {key(model)}", lambda: _model(corner, task, lambda *which: fitting[which]))  # noqa: B023
    return list(found) or _failures(space, task)


def _failures(space: Space, task: Task) -> list[str]:
    """Which patterns fail on an input; on the meta device a mechanism can be built that can't run."""
    found = []
    batch = task.sample()
    expected = [(1, *spec.answer_shape) for spec in (task.spec.subtasks or {"": task.spec}).values()]
    for architecture in space.largest():
        try:
            with torch.inference_mode():
                network = build(architecture, task).eval()
                answers = network(batch)
                task.predict(network, batch)
            given = [tuple(answer.shape) for answer in (answers if isinstance(answers, tuple) else [answers])]
            if given != expected:
                shapes = (", ".join(map(str, each)) for each in (given, expected))
                found.append("{}: gives {}, the task needs {}".format(describe(architecture), *shapes))
        except Exception as error:  # whatever the user's own code raises
            shape = tuple(batch.inputs.shape)
            found.append(f"{describe(architecture)}: fails on an input {shape}: {error!r}")
    return found


def _check_model(architecture: Architecture, task: Task) -> bool:
    model = architecture["model"]
    if architecture.get("roles") and task.spec.answer_length is None:
        raise ConfigError("roles: they are for tasks whose answer is a sequence of its own, such as translation")
    for name in ("width", "heads"):
        value = model.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"model.{name}: {value!r}; it must be a whole number from 1")
    if model["width"] % model["heads"]:
        raise ConfigError(f"model: width={model['width']}, heads={model['heads']}: heads must divide width")
    return True


def _roles(architecture: Architecture, task: Task) -> dict[str, list[str]]:
    """The names of the mechanisms by role, one a block.

    Where a task's answer is a sequence of its own, a model has a decoder that is causal and looks across to the
    encoder. Unless ``roles`` says otherwise, a decoder block's mechanisms are those of the encoder block beside it.
    """
    blocks = architecture["pattern"]
    if task.spec.answer_length is None:
        return {"": blocks}
    given = architecture.get("roles", {})
    return {"": blocks, **{role: [given[role]] * len(blocks) if role in given else blocks for role in ROLES}}


def _mechanism(architecture: Architecture, name: str, role: str, task: Task) -> Mechanism:
    model, spec = architecture["model"], task.spec
    where = f"attention.{name}{role and f' as {role}'}"
    mechanism: Mechanism = instantiate(
        architecture["attention"][name],
        where,
        width=model["width"],
        heads=model["heads"],
        length=spec.answer_length if role == "decoder" else spec.length,
        causal=role == "decoder" or (spec.causal and not role),
    )
    try:
        if role == "decoder":
            mechanism.begin(1)
        elif role == "cross":
            mechanism.read(torch.zeros(1, 1, model["width"]))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return mechanism


def _model(architecture: Architecture, task: Task, mechanism: Callable[[str, str], Mechanism]) -> nn.Module:
    settings = {name: value for name, value in architecture["model"].items() if name not in ("depth", "heads")}
    blocks = {role: [mechanism(name, role) for name in names] for role, names in _roles(architecture, task).items()}
    given = {f"{role}{'es' if role == 'cross' else 's'}": blocks[role] for role in blocks if role}
    network: nn.Module = instantiate(settings, "model", mechanisms=blocks[""], spec=task.spec, **given)
    return network
