"""Tasks: a data set with its metric, its loss and its baseline. One file each, under the contract stated here.

A task is constructed by keyword from its YAML and raises ``ValueError`` for invalid settings there. Data is read or
generated at first use, so that construction is cheap and the ``spec`` is known before any data is loaded. The search
compares architectures on the validation split; the final front is also evaluated on the test split.
"""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.batch import BOS as BOS
from spaces.batch import EOS as EOS
from spaces.batch import IGNORE_INDEX as IGNORE_INDEX
from spaces.batch import Batch as Batch
from spaces.batch import Examples as Examples
from spaces.batch import bucket_by_length
from spaces.dimensions import check_whole as check_whole
from spaces.seeds import split_seed

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MAX_VARIANTS = 8  # of a task with other input settings: trials in a row often have the same


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
    image_shape: tuple[int, int, int] | None = None  # channels, height, width, where frames are patches of an image
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
    def examples(self, split: Split) -> Examples:
        """Read or generate all examples of a split, by default one batch; deterministic for the same settings."""

    def with_input(self) -> Task:
        """This task with other settings of its input, given by keyword; a task that has such settings overrides it.

        The examples, their labels and their splits stay the same, so metrics are comparable.

        Raises:
            ValueError: a setting is invalid.
        """
        return self

    def variant(self, settings: Mapping[str, Any]) -> Task:
        """:meth:`with_input`; the ``MAX_VARIANTS`` latest are kept, with their data."""
        if not settings:
            return self
        name = json.dumps(settings, sort_keys=True)
        task = self._variants.pop(name, None) or self.with_input(**settings)
        self._variants[name] = task
        if len(self._variants) > MAX_VARIANTS:
            del self._variants[next(iter(self._variants))]
        return task

    def contents(self, split: Split) -> Sequence[Hashable]:
        """What copies of an example have in common, one per example: by default a hash of its input without padding."""
        examples, found = self.data(split), list[bytes]()
        for indices in torch.arange(examples.size).split(1000):
            inputs, padding, *_ = examples.select(indices)
            lengths = [inputs.shape[1]] * len(inputs) if padding is None else (~padding).sum(1).tolist()
            rows = (row[:length].numpy().tobytes() for row, length in zip(inputs, lengths, strict=True))
            found += (hashlib.blake2b(row, digest_size=16).digest() for row in rows)
        return found

    @cached_property
    def _variants(self) -> dict[str, Task]:
        return {}

    def data(self, split: Split) -> Examples:
        """:meth:`examples`, loaded at first use and kept on this task object."""
        if split not in self._loaded:
            self._loaded[split] = self.examples(split)
        return self._loaded[split]

    @cached_property
    def _loaded(self) -> dict[Split, Examples]:
        return {}

    def steps(self, split: Split, batch_size: int) -> int:
        """Number of batches of a split."""
        return -(-self.data(split).size // batch_size)

    def batches(self, split: Split, batch_size: int, *, shuffle: int | None = None) -> Iterator[Batch]:
        """Batches of a split without superfluous padding; the last one may be smaller.

        Args:
            split: which split.
            batch_size: examples per batch.
            shuffle: seed of a random order that puts examples of similar length into the same batch; None keeps the
                order of the data.
        """
        examples = self.data(split)
        order = torch.arange(examples.size)
        generator = torch.Generator().manual_seed(shuffle or 0)
        if shuffle is not None:
            order = torch.randperm(len(order), generator=generator)
        batches = order.split(batch_size)
        if shuffle is not None and (lengths := examples.lengths) is not None:
            batches = bucket_by_length(order, lengths, batch_size, generator)
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
        inputs, _, labels, decoder_input_ids, _ = examples.select(torch.arange(batch) % examples.size)
        longest = inputs.shape[1]
        if length is not None and not 1 <= length <= longest:
            raise ValueError(f"length={length}: the task has sequence lengths from 1 to {longest}")
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
