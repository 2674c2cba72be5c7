"""A batch of examples, and batches of examples of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

IGNORE_INDEX = -100  # the label of a position that contributes neither to the loss nor to the metric
BOS, EOS = 0, 1  # token ids of a target sequence: beginning and end of sequence


class Examples(Protocol):
    """All examples of a split: one :class:`Batch`, or files of which batches are made when they are selected."""

    @property
    def labels(self) -> Tensor:
        """As of :class:`Batch`."""

    @property
    def size(self) -> int:
        """The number of examples."""

    @property
    def lengths(self) -> Tensor | None:
        """Tokens of each example without padding, ``(examples,)``; None if there is no padding."""

    def select(self, indices: Tensor) -> Batch:
        """The examples at ``indices``, in that order, with their padding."""


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
        indices: the numbers of the examples in their split, ``(batch,)``; None if they are not known.
    """

    inputs: Tensor
    padding: Tensor | None
    labels: Tensor
    decoder_input_ids: Tensor | None = None
    subtasks: tuple[Batch | None, ...] = ()
    indices: Tensor | None = None

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.inputs)

    @property
    def lengths(self) -> Tensor | None:
        """Tokens of each example without padding, ``(batch,)``; None if there is no padding."""
        return None if self.padding is None else (~self.padding).sum(1)

    def select(self, indices: Tensor) -> Batch:
        """The examples at ``indices``, in that order."""
        inputs, padding, labels, decoder_input_ids, *_ = self
        return Batch(
            inputs[indices],
            None if padding is None else padding[indices],
            labels[indices],
            None if decoder_input_ids is None else decoder_input_ids[indices],
        )

    def trim_padding(self) -> Batch:
        """Cut to the longest example of the batch. Outputs and losses stay the same, with less computation."""
        inputs, padding, labels, decoder_input_ids, *_ = self
        if padding is not None:
            longest = int((~padding).sum(1).max())
            if labels.shape[:2] == padding.shape and decoder_input_ids is None:
                labels = labels[:, :longest]
            inputs, padding = inputs[:, :longest], padding[:, :longest]
            padding = padding if padding.any() else None
        if decoder_input_ids is not None:
            longest = int((labels != IGNORE_INDEX).sum(1).max())
            labels, decoder_input_ids = labels[:, :longest], decoder_input_ids[:, :longest]
        return Batch(inputs, padding, labels, decoder_input_ids, indices=self.indices)


BUCKET_BATCHES = 16  # batches that are sorted by length together: more means less padding, fewer a better shuffle


def bucket_by_length(order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """``order`` cut into batches of examples of similar length, in a random order of batches."""
    buckets = order.split(BUCKET_BATCHES * batch_size)
    batches = torch.cat([bucket[lengths[bucket].argsort(stable=True)] for bucket in buckets]).split(batch_size)
    return [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]
