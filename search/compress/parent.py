"""The parent: a trained network as it is, or the whole checkpoint, trained on the task once, and kept in a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from search.training.device import Device
from search.training.fit import LightningFit
from search.training.settings import TrainSettings
from search.training.speed import epoch_seconds
from search.training.weights import read_weights, write_weights
from spaces.architecture import Architecture
from spaces.build import build, task_of
from spaces.dimensions import ConfigError
from spaces.models.network import BlockNetwork
from spaces.tasks import Task


def untrained_parent(architecture: Architecture, task: Task, *, seed: int) -> BlockNetwork:
    """The parent before its training.

    Raises:
        ConfigError: its blocks cannot be replaced.
    """
    network = build(architecture, task, seed=seed)
    if isinstance(network, BlockNetwork):
        return network
    kind = type(network).__name__
    raise ConfigError(f"compression: networks of an embedding, blocks and a head can be compressed, not a {kind}")


def taught_parent(teacher: nn.Module, architecture: Architecture, task: Task, *, seed: int) -> BlockNetwork:
    """The parent with the weights of a trained network.

    Raises:
        ConfigError: the trained network is another one.
    """
    network = untrained_parent(architecture, task, seed=seed)
    try:
        network.load_state_dict(teacher.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ConfigError(f"compression: the largest network of the space is not the teacher: {reason}") from error
    return network.eval()


def trained_parent(
    path: Path,
    architecture: Architecture,
    task: Task,
    *,
    seed: int,
    device: Device,
    seconds: float,
    is_over: Callable[[], bool],
    report: Callable[[str], None],
) -> BlockNetwork:
    """The parent, from its file or trained now.

    Args:
        path: of the file.
        architecture: of the parent.
        task: of the study.
        seed: of the head, of dropout and of the order of examples.
        device: of the training.
        seconds: that the training may take; it has as many epochs as fit, at least one.
        is_over: called before each batch; if true, the training ends, and what it has reached is used but not stored.
        report: called with the progress.
    """
    network = untrained_parent(architecture, task, seed=seed)
    if path.exists():
        network.load_state_dict(read_weights(path, architecture))
        return network.eval()
    settings = TrainSettings(**architecture["train"])
    if math.isfinite(seconds):
        report("measuring the speed of training the whole network")
        fitting = int(seconds / epoch_seconds(architecture, task, device=device, seed=seed))
        settings = replace(settings, epochs=max(1, min(settings.epochs, fitting)))
    epochs = f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}"
    report(f"training the whole network, {epochs}")
    with LightningFit(network, task_of(architecture, task), settings, seed=seed, device=device, is_over=is_over) as fit:
        for epoch, metric in fit:
            report(f"training the whole network, {epoch} of {epochs}: {task.metric} {metric:.4f}")
            if epoch == settings.epochs:
                weights = fit.weights()
                write_weights(path, weights, architecture)
                network.load_state_dict(weights)
    return network.eval()
