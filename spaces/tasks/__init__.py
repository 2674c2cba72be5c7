"""Tasks: a data set with its metric, its loss and its baseline. One file each, under the contract stated here.

A task is constructed by keyword from its YAML and raises ``ValueError`` for invalid settings there. Data is read or
generated at first use, so that construction is cheap and the ``spec`` is known before any data is loaded. The search
compares architectures on the validation split; the final front is also evaluated on the test split.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.dimensions import check_whole as check_whole
from spaces.seeds import split_seed

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
IGNORE_INDEX = -100  # the label of a position that contributes neither to the loss nor to the metric
BOS, EOS = 0, 1  # token ids of a target sequence: beginning and end of sequence


class Batch(NamedTuple):
    """A batch of examples.

    Args:
        inputs: token ids ``(batch, length)`` int64, or frames ``(batch, length, features)`` float32.
        padding: ``(batch, length)`` bool, true at padding; None if there is none.
        labels: ``(batch, length)`` for a prediction per token, else ``(batch,)``; int64 with ``IGNORE_INDEX`` at
            positions without a label, or whatever the task's loss accepts.
        decoder_input_ids: for a target sequence, the labels shifted right, ``(batch, answer_length)``, beginning with
            ``BOS``; ``labels`` then has the same shape.
        subtasks: for a multi-task batch, one batch per subtask, None for a subtask that has no examples left; the
            other fields are then those of the first batch.
    """

    inputs: Tensor
    padding: Tensor | None
    labels: Tensor
    decoder_input_ids: Tensor | None = None
    subtasks: tuple[Batch | None, ...] = ()

    def select(self, indices: Tensor) -> Batch:
        """The examples at ``indices``, in that order."""
        inputs, padding, labels, decoder_input_ids, _ = self
        return Batch(
            inputs[indices],
            None if padding is None else padding[indices],
            labels[indices],
            None if decoder_input_ids is None else decoder_input_ids[indices],
        )

    def trim_padding(self) -> Batch:
        """Cut to the longest example of the batch. Outputs and losses stay the same, with less computation."""
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
    """The random generator of a generated split; every pair of seed and split has its own."""
    return torch.Generator().manual_seed(split_seed(seed, SPLITS.index(split), len(SPLITS)))


def split_random(seed: int, split: Split) -> random.Random:
    """:func:`split_generator` for generators that draw with Python's ``random``."""
    return random.Random(f"{seed} {split}")


def split_sizes(*, train: int, validation: int, test: int) -> Mapping[Split, int]:
    """Examples per split, each checked to be at least 1."""
    check_whole(1, train=train, validation=validation, test=test)
    return {"train": train, "validation": validation, "test": test}


def majority_share(labels: Iterable[Hashable]) -> float:
    """The share of the most frequent label: the accuracy of always predicting the majority class."""
    counts = Counter(labels)
    return max(counts.values()) / counts.total()


@dataclass(frozen=True)
class TaskSpec:
    """What a model must know about its task before any data exists.

    A token is an id of a ``vocabulary``, or a frame of ``features`` numbers, e.g. of a spectrogram or an image patch.

    Raises:
        ValueError: both a vocabulary and features are given, or neither.
    """

    length: int  # tokens of the longest example
    classes: int  # logits (or regression outputs) per prediction
    per_token: bool  # one prediction per token, or one per sequence
    vocabulary: int | None = None  # token ids are 0..vocabulary-1
    features: int | None = None  # numbers per frame
    ordinal: bool = False  # token ids are quantities, such as gray levels
    causal: bool = False  # output t may depend on inputs 0..t only
    answer_length: int | None = None  # sequence-to-sequence tasks: tokens of the longest target, each one of classes
    subtasks: Mapping[str, TaskSpec] = field(default_factory=dict)  # multi-task: the spec of each subtask by name

    def __post_init__(self) -> None:
        if not self.subtasks and (self.vocabulary is None) == (self.features is None):
            given = f"vocabulary={self.vocabulary}, features={self.features}"
            raise ValueError(f"{given}: give one of the two; tokens are ids of a vocabulary or frames of features")

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Shape of a model's output for one example of full length: ``(tokens, classes)`` or ``(classes,)``."""
        tokens = (self.answer_length or self.length,) if self.per_token else ()
        return (*tokens, self.classes)


class Task(ABC):
    """A data set with its metric and loss.

    Attributes:
        metric: name of the objective among :meth:`compute_metrics`.
        direction: whether the metric is maximized or minimized.
        chance: metric of a model that has learned nothing, e.g. of always predicting the majority class.
        best: metric of a perfect model.
        batch_size: default training batch size; small where each example has many labels.
        class_names: names of the classes, if there are any, for messages.
        subtasks: for a multi-task, the tasks by name.
        spec: shapes of the data.
        image_shape: channels, height and width of the images whose patches or pixels the tokens are; None: no images.
    """

    metric: str = "accuracy"
    direction: Literal["maximize", "minimize"] = "maximize"
    best: float = 1.0
    batch_size: int = 32
    class_names: Sequence[str] = ()
    subtasks: Mapping[str, Task] = MappingProxyType({})
    spec: TaskSpec
    image_shape: tuple[int, int, int] | None = None
    chance: float

    @abstractmethod
    def examples(self, split: Split) -> Batch:
        """Read or generate all examples of a split as one batch; deterministic for the same settings."""

    def data(self, split: Split) -> Batch:
        """:meth:`examples`, loaded at first use and kept on this task object."""
        if split not in self._loaded:
            self._loaded[split] = self.examples(split)
        return self._loaded[split]

    @cached_property
    def _loaded(self) -> dict[Split, Batch]:
        return {}

    def steps(self, split: Split, batch_size: int) -> int:
        """Number of batches of a split."""
        return -(-len(self.data(split).inputs) // batch_size)

    def batches(self, split: Split, batch_size: int, *, shuffle: int | None = None) -> Iterator[Batch]:
        """Batches of a split without superfluous padding; the last one may be smaller.

        Args:
            split: which split.
            batch_size: examples per batch.
            shuffle: seed of a random order that puts examples of similar length into the same batch; None keeps the
                order of the data.
        """
        examples = self.data(split)
        order = torch.arange(len(examples.inputs))
        generator = torch.Generator().manual_seed(shuffle or 0)
        if shuffle is not None:
            order = torch.randperm(len(order), generator=generator)
        batches = order.split(batch_size)
        if shuffle is not None and examples.padding is not None:
            batches = _bucket_by_length(order, (~examples.padding).sum(1), batch_size, generator)
        for indices in batches:
            yield examples.select(indices).trim_padding()

    def sample(self, batch: int = 1, length: int | None = None) -> Batch:
        """``batch`` validation examples, cut to ``length`` if given, for counting FLOPs and measuring latency.

        The padding mask is dropped, so that sequences of full length are measured. A split with fewer examples is
        repeated.

        Raises:
            ValueError: ``length`` exceeds that of the task.
        """
        examples = self.data("validation")
        longest = examples.inputs.shape[1]
        if length is not None and not 1 <= length <= longest:
            raise ValueError(f"length={length}: the task has sequence lengths from 1 to {longest}")
        inputs, _, labels, decoder_input_ids, _ = examples.select(torch.arange(batch) % len(examples.inputs))
        return Batch(inputs[:, :length], None, labels, decoder_input_ids)

    def predict(self, network: nn.Module, batch: Batch) -> Any:
        """Run inference; this is what FLOPs and latency are measured on. By default one forward pass."""
        return network(batch)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean training loss of a batch."""
        return F.cross_entropy(logits.flatten(0, -2), batch.labels.flatten(), ignore_index=IGNORE_INDEX)

    @property
    def uses_cross_entropy(self) -> bool:
        """Whether the loss is the one above, so that labels can be smoothed and classes weighted."""
        return type(self).loss is Task.loss

    def eval_step(self, network: nn.Module, batch: Batch) -> Any:
        """The statistics of a batch for :meth:`compute_metrics`; by default correct predictions and labels."""
        labels = batch.labels
        labelled = labels != IGNORE_INDEX
        correct = network(batch).argmax(-1) == labels
        return int(correct[labelled].sum()), int(labelled.sum())

    def baselines(self) -> Sequence[nn.Module] | None:
        """Classical models that networks are compared with, see :mod:`spaces.baselines`; None: those for the spec."""
        return None

    def compute_metrics(self, outputs: Sequence[Any]) -> dict[str, float]:
        """Metrics by name, including ``metric``, from the results of :meth:`eval_step` on all batches of a split."""
        return {self.metric: sum(total for total, _ in outputs) / sum(count for _, count in outputs)}


BUCKET_BATCHES = 16  # batches that are sorted by length together: more means less padding, fewer a better shuffle


def _bucket_by_length(order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """``order`` cut into batches of examples of similar length, in a random order of batches."""
    buckets = order.split(BUCKET_BATCHES * batch_size)
    batches = torch.cat([bucket[lengths[bucket].argsort(stable=True)] for bucket in buckets]).split(batch_size)
    return [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]
