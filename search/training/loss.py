"""The training loss: that of the task, or cross-entropy with label smoothing and class weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.training.settings import TrainSettings
from spaces.tasks import IGNORE_INDEX, Batch, Task


class TrainingLoss(nn.Module):
    """``loss(logits, batch)``, the mean training loss of a batch.

    Args:
        task: its own loss is used unless the settings change it.
        settings: of training, which must fit the task, see :func:`search.training.check.check_settings`.
    """

    weights: Tensor | None

    def __init__(self, task: Task, settings: TrainSettings) -> None:
        super().__init__()
        self._task, self._label_smoothing = task, settings.label_smoothing
        balanced = settings.class_weights == "balanced"
        weights = balanced_weights(task.data("train").labels, task.spec.classes) if balanced else None
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Any, batch: Batch) -> Tensor:
        """``logits`` and ``batch`` as in :meth:`spaces.tasks.Task.loss`."""
        if not self._label_smoothing and self.weights is None:
            return self._task.loss(logits, batch)
        return F.cross_entropy(
            logits.flatten(0, -2),
            batch.labels.flatten(),
            self.weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self._label_smoothing,
        )


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """A weight ``(classes,)`` per class, inverse to its frequency, with a mean of 1 over the labels.

    As scikit-learn's ``class_weight="balanced"``; the weight of a class without an example is 0.
    """
    counts = torch.bincount(labels[labels != IGNORE_INDEX], minlength=classes)
    return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts), 0.0)
