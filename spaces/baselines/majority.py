"""Always the same answer: the most frequent class of the training split, or the mean of its targets."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.baselines import Baseline, one_hot_logits, training_rows
from spaces.tasks import IGNORE_INDEX, Batch, Task


class Majority(Baseline):
    """The most frequent class of the training split, for every example or token."""

    name = "majority class"

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        labels = task.data("train").labels
        self.per_token, self.classes = task.spec.per_token, task.spec.classes
        self.label = int(labels[labels != IGNORE_INDEX].mode().values)

    def forward(self, batch: Batch) -> Tensor:
        """See :meth:`Baseline.forward`."""
        shape = batch.inputs.shape[: 2 if self.per_token else 1]
        return one_hot_logits(torch.full(shape, self.label), self.classes)


class MeanFrame(Baseline):
    """The mean target vector of the training split's positions that are not padding, for every token."""

    name = "mean frame"

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.positions = positions  # the token id at which a frame is predicted

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        examples = training_rows(task)
        self.frame = examples.labels[examples.inputs == self.positions].mean(0)

    def forward(self, batch: Batch) -> Tensor:
        """See :meth:`Baseline.forward`."""
        return self.frame.expand(*batch.inputs.shape, -1)
