"""The training of an architecture whose weights are known: those of another trial, or those of the parent itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from search.study.records import Record
from search.training import Epoch, Parent
from search.training.device import Device
from search.training.evaluation import evaluate_split, program_of
from search.training.settings import TrainSettings
from search.training.weights import read_weights
from spaces.build import build, task_of
from spaces.dimensions import ConfigError
from spaces.tasks import Split, Task

Keep = Callable[[int, Mapping[str, Tensor], Mapping[str, Any]], str]
TRAINING_PASSES = 3  # a forward and a backward pass of training take about as long as three forward passes


def known_training(task: Task, record: Record, trained: Record, device: Device, keep: Keep) -> KnownTraining | None:
    """The training of ``record`` with the weights of ``trained``; None if these were not kept, or may differ.

    Args:
        task: of the study.
        record: of a trial that has begun.
        trained: of a complete trial that differs in the quantization only.
        device: where networks are trained. On others than a CPU, metrics differ in the last digits.
        keep: writes the weights of a trial, by number and architecture.
    """
    settings = TrainSettings(**record.architecture["train"])
    if settings.keep_best or device.accelerator != "cpu":  # which epoch is best depends on the quantization
        return None
    try:
        weights = read_weights(Path(trained.weights), trained.architecture)
    except ConfigError:  # removed, as the trial is not on the front any more, or on another host
        return None
    return KnownTraining(task, record, weights, settings.epochs, trained.cpu_seconds[-1], keep)


def parent_training(
    task: Task, record: Record, parent: Parent, keep: Keep, *, alike: Record | None
) -> KnownTraining | None:
    """The training of the parent itself, which has been trained before; None of a network that differs from it.

    Its CPU-seconds are those of ``alike``, or estimated from those of its predictions for the validation split.

    Args:
        task: of the study.
        record: of a trial that has begun.
        parent: of the study.
        keep: writes the weights of a trial, by number and architecture.
        alike: a complete trial with the same weights, if there is one.
    """
    if (weights := parent.weights_of(record.architecture)) is None:
        return None
    epochs = TrainSettings(**record.architecture["train"]).epochs
    training = KnownTraining(task, record, dict(weights), epochs, 0.0, keep)
    if alike is not None:
        training.cpu_s = alike.cpu_seconds[-1]
        return training
    start = time.thread_time()
    training.evaluate("validation")
    passes = 1 + TRAINING_PASSES * task.data("train").size / task.data("validation").size
    training.cpu_s = round(epochs * passes * (time.thread_time() - start), 4)
    return training


class KnownTraining:
    """A :class:`~search.training.Training` of one epoch, the last one, which takes no time.

    Attributes:
        cpu_s: CPU-seconds of a training of the architecture, from which those of other trials are predicted.
    """

    overhead = 0.0

    def __init__(
        self, task: Task, record: Record, weights: dict[str, Tensor], epochs: int, cpu_s: float, keep: Keep
    ) -> None:
        self.epochs = epochs
        self._number, self._architecture, self._weights = record.number, dict(record.architecture), weights
        self.cpu_s, self._keep = cpu_s, keep
        self._task = task_of(self._architecture, task)
        network = build(self._architecture, task)
        network.load_state_dict(weights)
        self._predicts = program_of(weights, self._architecture, task) or network.eval()
        self._evaluate = cache(lambda split: evaluate_split(self._predicts, self._task, split))

    @property
    def metric(self) -> float:
        """See :class:`~search.training.Training`."""
        return self.evaluate("validation")[self._task.metric]

    def __iter__(self) -> Iterator[Epoch]:
        yield Epoch(self.epochs, self.metric, self.cpu_s)

    def save(self, *, if_due: bool = False) -> None:
        """Nothing: there is nothing to resume."""

    def save_weights(self) -> str:
        """See :class:`~search.training.Training`."""
        return self._keep(self._number, self._weights, self._architecture)

    def evaluate(self, split: Split) -> dict[str, float]:
        """See :class:`~search.training.Training`."""
        return dict(self._evaluate(split))
