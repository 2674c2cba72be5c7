"""The training loss: that of the task, or cross-entropy with label smoothing and class weights."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from search.training.settings import TrainSettings
from spaces.tasks import IGNORE_INDEX, Batch, Task


class TrainingLoss:
    """``loss(logits, batch)``, the mean training loss of a batch.

    Args:
        task: its own loss is used unless the settings change it.
        settings: of training, which must fit the task, see :func:`search.training.check.check_settings`.
    """

    def __init__(self, task: Task, settings: TrainSettings) -> None:
        self._task, self._label_smoothing = task, settings.label_smoothing

    def __call__(self, logits: Any, batch: Batch) -> Tensor:
        """``logits`` and ``batch`` as in :meth:`spaces.tasks.Task.loss`."""
        if not self._label_smoothing:
            return self._task.loss(logits, batch)
        return F.cross_entropy(
            logits.flatten(0, -2),
            batch.labels.flatten(),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self._label_smoothing,
        )
