"""Tasks: data and the metric to judge by. One file each, under one contract, stated here.

A task is constructed by keyword from its YAML and raises ``ValueError`` there for whatever is wrong with its settings;
data is read or generated at first use, so that sizes are known at once. Train, validation and test are separate: the
search sees validation, the final front is reported on test too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.dimensions import check_whole as check_whole

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
IGNORE_INDEX = -100  # the label of a position that is neither learned nor judged
BOS, EOS = 0, 1  # ids of an answer's vocabulary: what stands before its first token, and what closes it


class Batch(NamedTuple):
    """Examples side by side.

    ``inputs`` are token ids ``(batch, length)`` int64, or frames ``(batch, length, features)`` float32. ``padding`` is
    ``(batch, length)`` bool, true at padding, or None. ``labels`` are ``(batch, length)`` where a model answers per
    token, else ``(batch,)``; int64 with ``IGNORE_INDEX`` where nothing is asked, or what else the task's loss
    understands. Where the answer is a sequence of its own, ``decoder_input_ids`` holds what stands before each of its
    tokens, ``(batch, answer_length)`` ids that begin with ``BOS``, and ``labels`` have its shape. Of a task that is
    several, ``parts`` holds a batch of each, None of those that have no more; the rest is then the first's.
    """

    inputs: Tensor
    padding: Tensor | None
    labels: Tensor
    decoder_input_ids: Tensor | None = None
    parts: tuple[Batch | None, ...] = ()

    def rows(self, chosen: Tensor) -> Batch:
        """The examples of these numbers, in this order."""
        inputs, padding, labels, decoder_input_ids, _ = self
        return Batch(
            inputs[chosen],
            None if padding is None else padding[chosen],
            labels[chosen],
            None if decoder_input_ids is None else decoder_input_ids[chosen],
        )

    def trimmed(self) -> Batch:
        """Without the columns that are padding in every example: neither outputs nor losses change, only the work."""
        inputs, padding, labels, decoder_input_ids, _ = self
        if padding is not None:
            longest = int((~padding).sum(1).max())
            if labels.shape[:2] == padding.shape and decoder_input_ids is None:
                labels = labels[:, :longest]
            inputs, padding = inputs[:, :longest], padding[:, :longest]
            padding = padding if padding.any() else None
        if decoder_input_ids is not None:
            longest = int((labels != IGNORE_INDEX).sum(1).max())
            labels, decoder_input_ids = labels[:, :longest], decoder_input_ids[:, :longest]
        return Batch(inputs, padding, labels, decoder_input_ids)


def split_generator(seed: int, split: Split) -> torch.Generator:
    """What the examples of a split are drawn by, where they are generated: each seed has another for each split."""
    return torch.Generator().manual_seed(seed * len(SPLITS) + SPLITS.index(split))


@dataclass(frozen=True)
class TaskSpec:
    """What a model must know of its task before any data exists.

    A token is an id of a ``vocabulary``, or a frame of ``features`` numbers: of a spectrogram, of an image's patch.

    Raises:
        ValueError: it has both a vocabulary and features, or neither.
    """

    length: int  # tokens in the longest example
    classes: int  # logits, or numbers, per answer
    per_token: bool  # one answer a token, or one a sequence
    vocabulary: int | None = None  # token ids are 0..vocabulary-1
    features: int | None = None  # numbers a frame
    causal: bool = False  # output t may depend on inputs 0..t alone
    answer_length: int | None = None  # tokens in the longest answer that is a sequence of its own, one of classes each
    parts: Mapping[str, TaskSpec] = field(default_factory=dict)  # of the tasks by name, of a task that is several

    def __post_init__(self) -> None:
        if not self.parts and (self.vocabulary is None) == (self.features is None):
            given = f"vocabulary={self.vocabulary}, features={self.features}"
            raise ValueError(f"{given}: a task's tokens are ids of a vocabulary or frames of features, one of the two")

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Of what a model gives for one example at full length: ``(tokens, classes)``, or ``(classes,)``."""
        tokens = (self.answer_length or self.length,) if self.per_token else ()
        return (*tokens, self.classes)


class Task(ABC):
    """Data and the metric to judge by.

    ``metric`` is the name that users read, ``direction`` says which way is better, ``chance`` is what a model that
    learned nothing scores and ``best`` what a perfect one does. ``batch_size`` is how many examples make a good step of
    training: few where each holds many answers. ``names`` are the classes', where they have any, for messages;
    ``parts`` are the tasks by name that a task is made of, where it is several.
    """

    metric: str = "accuracy"
    direction: Literal["maximize", "minimize"] = "maximize"
    best: float = 1.0
    batch_size: int = 32
    names: Sequence[str] = ()
    parts: Mapping[str, Task] = MappingProxyType({})
    spec: TaskSpec
    chance: float

    @abstractmethod
    def examples(self, split: Split) -> Batch:
        """All examples of a split as one batch; the same every time for the same settings."""

    def cached(self, split: Split) -> Batch:
        """:meth:`examples`, read or generated once a process."""
        return _cached(self, split)

    def steps(self, split: Split, batch_size: int) -> int:
        """How many batches a split has."""
        return -(-len(self.cached(split).inputs) // batch_size)

    def batches(self, split: Split, batch_size: int, *, shuffle: int | None = None) -> Iterator[Batch]:
        """Batches of a split, trimmed; the last one may be short.

        ``shuffle`` seeds a random order, in which examples of similar length share a batch; None keeps the order.
        """
        examples = self.cached(split)
        order = torch.arange(len(examples.inputs))
        generator = torch.Generator().manual_seed(shuffle or 0)
        if shuffle is not None:
            order = torch.randperm(len(order), generator=generator)
        batches = order.split(batch_size)
        if shuffle is not None and examples.padding is not None:
            batches = _alike(order, (~examples.padding).sum(1), batch_size, generator)
        for rows in batches:
            yield examples.rows(rows).trimmed()

    def sample(self, batch: int = 1, length: int | None = None) -> Batch:
        """``batch`` validation examples to count and time on, by default at the full length.

        Padding is taken for content: what is measured is a full sequence. A short split is repeated.

        Raises:
            ValueError: ``length`` is beyond the task's.
        """
        examples = self.cached("validation")
        longest = examples.inputs.shape[1]
        if length is not None and not 1 <= length <= longest:
            raise ValueError(f"length={length}: the task has lengths from 1 to {longest}")
        inputs, _, labels, decoder_input_ids, _ = examples.rows(torch.arange(batch) % len(examples.inputs))
        return Batch(inputs[:, :length], None, labels, decoder_input_ids)

    def predict(self, network: nn.Module, batch: Batch) -> Any:
        """What a network is used for, and so what is counted and timed: by default one forward pass."""
        return network(batch)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean training loss of what a network gives for a batch."""
        return F.cross_entropy(logits.flatten(0, -2), batch.labels.flatten(), ignore_index=IGNORE_INDEX)

    def eval_step(self, network: nn.Module, batch: Batch) -> Any:
        """What :meth:`compute_metrics` needs to know of a batch: here, how many answers are right, and of how many."""
        labels = batch.labels
        judged = labels != IGNORE_INDEX
        right = network(batch).argmax(-1) == labels
        return int(right[judged].sum()), int(judged.sum())

    def compute_metrics(self, judged: Sequence[Any]) -> dict[str, float]:
        """Metrics by name, ``metric`` among them, over all batches that :meth:`eval_step` was given."""
        return {self.metric: sum(total for total, _ in judged) / sum(count for _, count in judged)}


@cache
def _cached(task: Task, split: Split) -> Batch:
    return task.examples(split)


POOL = 16  # batches whose examples are sorted by length: more waste less on padding, fewer shuffle better


def _alike(order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """``order`` cut into batches of examples of similar length, the batches themselves in random order."""
    pools = order.split(POOL * batch_size)
    batches = torch.cat([pool[lengths[pool].argsort(stable=True)] for pool in pools]).split(batch_size)
    return [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]
