"""Tasks: data and the metric to judge by. One file each, under one contract, stated here.

A task is constructed by keyword from its YAML and raises ``ValueError`` there for whatever is wrong with its settings;
data is read or generated at first use, so that sizes are known at once. Train, validation and test are separate: the
search sees validation, the final front is reported on test too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.dimensions import check_whole as check_whole

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
IGNORED = -100  # the label of a position that is neither learned nor judged


class Batch(NamedTuple):
    """Examples side by side.

    ``inputs`` are token ids ``(batch, length)`` int64, or frames ``(batch, length, features)`` float32. ``padding`` is
    ``(batch, length)`` bool, true at padding, or None. ``labels`` are int64, ``(batch, length)`` where the task is
    judged per token, else ``(batch,)``.
    """

    inputs: Tensor
    padding: Tensor | None
    labels: Tensor


@dataclass(frozen=True)
class Sizes:
    """What a model must know of its task before any data exists.

    A token is an id of a ``vocabulary``, or a frame of ``features`` numbers: of a spectrogram, of an image's patch.

    Raises:
        ValueError: it has both a vocabulary and features, or neither.
    """

    length: int  # tokens in the longest example
    classes: int  # logits per judged position
    per_token: bool  # one label a token, or one a sequence
    vocabulary: int | None = None  # token ids are 0..vocabulary-1
    features: int | None = None  # numbers a frame
    causal: bool = False  # output t may depend on inputs 0..t alone

    def __post_init__(self) -> None:
        if (self.vocabulary is None) == (self.features is None):
            given = f"vocabulary={self.vocabulary}, features={self.features}"
            raise ValueError(f"{given}: a task's tokens are ids of a vocabulary or frames of features, one of the two")


class Task(ABC):
    """Data and the metric to judge by.

    ``metric`` is the name that users read, ``direction`` says which way is better, ``chance`` is what a model that
    learned nothing scores and ``best`` what a perfect one does. ``batch_size`` is how many examples make a good step of
    training: few where each holds many answers.
    """

    metric: str = "accuracy"
    direction: Literal["maximize", "minimize"] = "maximize"
    best: float = 1.0
    batch_size: int = 32
    sizes: Sizes
    chance: float

    @abstractmethod
    def examples(self, split: Split) -> Batch:
        """All examples of a split as one batch; the same every time for the same settings."""

    def batches(self, split: Split, batch_size: int, *, shuffle: int | None = None) -> Iterator[Batch]:
        """Batches of a split; ``shuffle`` seeds a random order, None keeps the order. The last batch may be short."""
        inputs, padding, labels = self.cached(split)
        order = torch.arange(len(inputs))
        if shuffle is not None:
            order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(shuffle))
        for rows in order.split(batch_size):
            yield Batch(inputs[rows], None if padding is None else padding[rows], labels[rows])

    def cached(self, split: Split) -> Batch:
        """:meth:`examples`, read or generated once a process."""
        return _cached(self, split)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean training loss of a batch; ``logits`` are ``(..., classes)`` for ``labels`` ``(...)``."""
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)

    def judge(self, logits: Tensor, labels: Tensor) -> tuple[float, int]:
        """The metric summed over a batch's judged positions, and how many those were."""
        judged = labels != IGNORED
        return (logits.argmax(-1)[judged] == labels[judged]).sum().item(), int(judged.sum())


@cache
def _cached(task: Task, split: Split) -> Batch:
    return task.examples(split)
