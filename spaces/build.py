"""Networks from architectures, and whether the corners of a space fit a task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from spaces.architecture import Architecture, describe, key
from spaces.attention import Mechanism, Shape
from spaces.dimensions import ConfigError, check_whole
from spaces.instantiate import check_arguments, instantiate
from spaces.models.config import EMBEDDING_SETTINGS
from spaces.models.quantization import quantize
from spaces.models.sparsity import DENSE, sparsify
from spaces.relative import in_tokens
from spaces.schema import shown
from spaces.space import ROLES, Space
from spaces.tasks import Task

# Settings of model that its class does not take.
OF_BLOCKS = ("depth", "heads", "causal", "class_tokens", "quantization", "sparsity")


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
    """The task with the settings of the architecture's ``input``, except those of the model's embedding.

    A setting of None is left as the task has it.

    Raises:
        ConfigError: a setting is unknown or invalid.
    """
    settings, _ = input_settings(architecture)
    check_arguments(task.with_input, settings, "input", name=type(task).__name__)
    try:
        return task.variant(settings)
    except (TypeError, ValueError) as error:
        raise ConfigError("\n".join(f"input: {line}" for line in str(error).splitlines())) from error


def input_settings(architecture: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of ``input`` that are not None: those of the task, and those of the model's embedding."""
    section = architecture.get("input") or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"input={shown(section)}: it must be a mapping of settings")
    given = {name: value for name, value in section.items() if value is not None}
    embedding = {name: given.pop(name) for name in EMBEDDING_SETTINGS if name in given}
    return given, embedding


def _model_settings(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``model`` and those of the embedding in ``input``.

    Raises:
        ConfigError: a setting is in both.
    """
    model, (_, embedding) = architecture["model"], input_settings(architecture)
    if twice := sorted(model.keys() & embedding.keys()):
        raise ConfigError(f"input.{twice[0]}: the space also has model.{twice[0]}; only one of them may be given")
    return {**model, **embedding}


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
            except RuntimeError as error:  # of PyTorch, for sizes that overflow
                tried[part] = None
                found[f"model: too large for any machine: {error}"] = None
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
            for role, names in roles_of(corner, fitted).items()
            for name in dict.fromkeys(names)
        }
        if None not in fitting.values():
            attempt(f"model {given} {model}", lambda: _small(_model(corner, fitted, lambda *which: fitting[which])))  # noqa: B023
    return list(found) or _failures(space, task)


def _small(network: nn.Module) -> nn.Module:
    """``network``, which is on the meta device, if its parameters fit into the memory of this machine."""
    gigabytes = sum(each.numel() * each.element_size() for each in network.parameters()) / 1e9
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if gigabytes > memory:
        raise ConfigError(f"model: networks have {gigabytes:.0f} GB of parameters; this machine has {memory:.0f} GB")
    return network


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
    _model_settings(architecture)  # its error names the section, so it needs no prefix
    try:
        _shape(architecture, task)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    return True


def _shape(architecture: Architecture, task: Task, role: str = "") -> Shape:
    """The shape of the mechanisms of a role; see :func:`roles_of`."""
    model, spec = _model_settings(architecture), task.spec
    stride = model.get("stride", 1)
    check_whole(1, stride=stride)
    class_tokens = model.get("class_tokens", 0)
    check_whole(0, class_tokens=class_tokens)
    length = -(-spec.length // stride) + class_tokens
    if role == "decoder":
        length = spec.answer_length or length
    causal = role == "decoder" or ((spec.causal or model.get("causal") is True) and not role)
    width: Any = model.get("width")  # Shape refuses None
    heads: Any = model.get("heads")
    return Shape(width, heads, length, causal)


def roles_of(architecture: Architecture, task: Task) -> dict[str, list[str]]:
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
    try:
        settings = in_tokens(architecture["attention"][name], shape.length)
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from error
    mechanism = instantiate(Mechanism, settings, where, shape=shape)
    try:
        if role == "decoder":
            mechanism.init_cache(1)
        elif role == "cross":
            mechanism.encode_source(torch.zeros(1, 1, shape.width))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return mechanism


def _model(architecture: Architecture, task: Task, mechanism: Callable[[str, str], Mechanism]) -> nn.Module:
    given = _model_settings(architecture)
    settings = {name: value for name, value in given.items() if name not in OF_BLOCKS}
    blocks = {role: [mechanism(name, role) for name in names] for role, names in roles_of(architecture, task).items()}
    mechanisms = {f"{role}_mechanisms" if role else "mechanisms": blocks[role] for role in blocks}
    network = instantiate(nn.Module, settings, "model", spec=task.spec, **mechanisms)
    try:
        return quantize(sparsify(network, given.get("sparsity", DENSE)), given.get("quantization", "none"))
    except ValueError as error:
        raise ConfigError(f"model.{error}") from error
