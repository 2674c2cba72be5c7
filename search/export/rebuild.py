"""A network as files: its weights, and a YAML file from which it is built again without the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from search.training.weights import read_weights, write_weights
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.models.config import EMBEDDING_SETTINGS
from spaces.spec import TaskSpec
from spaces.tasks import Examples, Split, Task

ARCHITECTURE, WEIGHTS = "architecture.yaml", "model.safetensors"


class SpecAlone(Task):
    """A task of which only the specification is known, from which a network can be built."""

    chance = 0.0

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def examples(self, split: Split) -> Examples:
        """There are none."""
        raise NotImplementedError


def save_network(folder: Path, network: nn.Module, architecture: Mapping[str, Any], spec: TaskSpec) -> None:
    """Write the architecture, the specification of the inputs and outputs, and the weights."""
    known = {"architecture": dict(architecture), "spec": _plain(asdict(spec))}
    text = yaml.safe_dump(known, sort_keys=False, default_flow_style=None)  # short lists on one line
    (folder / ARCHITECTURE).write_text(text, encoding="utf-8")
    write_weights(folder / WEIGHTS, network.state_dict(), architecture)


def load_network(folder: str | Path) -> nn.Module:
    """The network of an exported folder, in evaluation mode; it needs this project's package, but not the data.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        stored = yaml.safe_load((folder / ARCHITECTURE).read_text(encoding="utf-8"))
        architecture, shapes = stored["architecture"], stored["spec"]
        spec = _spec(shapes)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / ARCHITECTURE}: no architecture: {error}") from error
    network = network_of(architecture, SpecAlone(spec))
    network.load_state_dict(read_weights(folder / WEIGHTS, architecture))
    return network


def _plain(value: Any) -> Any:
    """``value`` with lists in place of tuples."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _spec(shapes: Mapping[str, Any]) -> TaskSpec:
    image_shape = tuple(shapes["image_shape"]) if shapes["image_shape"] else None
    subtasks = {name: _spec(each) for name, each in shapes.get("subtasks", {}).items()}
    kept_ids = tuple(shapes["kept_ids"]) if shapes.get("kept_ids") else None
    return TaskSpec(**{**shapes, "image_shape": image_shape, "kept_ids": kept_ids, "subtasks": subtasks})


def network_of(architecture: Mapping[str, Any], task: Task) -> nn.Module:
    """The network of an architecture whose settings of the input ``task`` has already, in evaluation mode."""
    given = (architecture.get("input") or {}).items()
    embedding = {name: value for name, value in given if name in EMBEDDING_SETTINGS}
    return build({**architecture, "input": embedding}, task).eval()
