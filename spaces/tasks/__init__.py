"""Tasks: a data set with its metric, its loss and its baseline. One file each, under the contract stated here.

A task is constructed by keyword from its YAML and raises ``ValueError`` for invalid settings there. Data is read or
generated at first use, so that construction is cheap and the ``spec`` is known before any data is loaded. The search
compares architectures on the validation split; the final front is also evaluated on the test split.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
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
from spaces.metrics import METRICS, Predictions, chance_level, keeps_logits, metrics_of
from spaces.metrics import majority_share as majority_share
from spaces.seeds import split_seed
from spaces.spec import TaskSpec as TaskSpec

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MAX_VARIANTS = 16  # of a task with other input settings: as many as a space has, else candidates take them in turns


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


class Task(ABC):
    """A data set with its metric and loss.

    Attributes:
        metric: name of the objective among :meth:`compute_metrics`; see :meth:`configure`.
        direction: whether the metric is maximized or minimized.
        chance: metric of a model that has learned nothing, e.g. of always predicting the majority class; of a
            classification the accuracy, whatever the objective, whose own level is :attr:`objective_chance`.
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

    def configure(self, *, metric: str | None = None) -> None:
        """The settings that every task has beside those of its constructor; in YAML they stand among these.

        Args:
            metric: the objective, for a classification any of :data:`~spaces.metrics.METRICS`; None: the task's own.

        Raises:
            ValueError: the task has no such metric.
        """
        if metric is None or metric == self.metric:
            return
        if self.metric not in METRICS or metric not in METRICS:
            accepted = ", ".join(METRICS if self.metric in METRICS else [self.metric])
            raise ValueError(f"metric={metric!r}: unknown metric of this task; known: {accepted}")
        chosen = METRICS[metric]
        self.metric, self.direction, self.best = metric, chosen.direction, chosen.best
        self.__dict__.pop("objective_chance", None)

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
        task.configure(metric=self.metric)
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

    def labels_of(self, split: Split) -> Tensor:
        """The labels of all examples of a split; a task that knows them without reading its inputs overrides it."""
        return self.data(split).labels

    @cached_property
    def objective_chance(self) -> float:
        """:attr:`metric` of a model that has learned nothing: always the majority class, without preferences."""
        if self.metric not in METRICS or self.metric == "accuracy":
            return self.chance
        return chance_level(self.metric, self.labels_of("validation"))

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
            yield examples.select(indices).trim_padding()._replace(indices=indices)

    def sample(self, batch: int = 1, length: int | None = None) -> Batch:
        """``batch`` validation examples, cut to ``length`` if given, for counting FLOPs and measuring latency.

        The padding mask is dropped, so that sequences of full length are measured. A split with fewer examples is
        repeated.

        Raises:
            ValueError: ``length`` exceeds that of the task.
        """
        examples = self.data("validation")
        inputs, _, labels, decoder_input_ids, *_ = examples.select(torch.arange(batch) % examples.size)
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
        """The results of a batch for :meth:`compute_metrics`.

        By default predictions; of a task with another metric a sum and a count, or whatever its ``compute_metrics``
        takes.
        """
        logits = network(batch)
        return Predictions.of(logits, batch.labels, scored=keeps_logits(self.metric, logits.shape[-1]))

    def baselines(self) -> Sequence[nn.Module] | None:
        """Classical models that networks are compared with, see :mod:`spaces.baselines`; None: those for the spec."""
        return None

    def compute_metrics(self, outputs: Sequence[Any]) -> dict[str, float]:
        """Metrics by name, including :attr:`metric`, from the results of :meth:`eval_step` on all batches of a split.

        Of predictions all classification metrics that are defined; of sums and counts the ratio of their totals.
        """
        return self._metrics(outputs, METRICS)

    def compute_objective(self, outputs: Sequence[Any]) -> float:
        """:attr:`metric` alone, for after each epoch: the others may take as long as the epoch. NaN if undefined."""
        if type(self).compute_metrics is Task.compute_metrics:
            return self._metrics(outputs, [self.metric]).get(self.metric, math.nan)
        return self.compute_metrics(outputs)[self.metric]

    def _metrics(self, outputs: Sequence[Any], names: Iterable[str]) -> dict[str, float]:
        if isinstance(outputs[0], Predictions):
            return metrics_of(outputs, names)
        if self.metric in METRICS and self.metric != "accuracy":
            raise ValueError(f"metric={self.metric!r}: eval_step of {type(self).__name__} returns no predictions")
        return {self.metric: sum(total for total, _ in outputs) / sum(count for _, count in outputs)}
