"""The training loss: that of the task, or cross-entropy with label smoothing and class weights; and distillation."""

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
        teacher: predictions for the training examples, ``(examples, *answer)``; None where there is no teacher, and
            ``distillation`` has no effect.
    """

    weights: Tensor | None
    teacher: Tensor | None

    def __init__(self, task: Task, settings: TrainSettings, teacher: Tensor | None = None) -> None:
        super().__init__()
        self._task, self._label_smoothing = task, settings.label_smoothing
        self._share = 0.0 if teacher is None else settings.distillation
        self._temperature = settings.temperature
        self.register_buffer("teacher", teacher, persistent=False)
        balanced = settings.class_weights == "balanced"
        weights = balanced_weights(task.data("train").labels, task.spec.classes) if balanced else None
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Any, batch: Batch) -> Tensor:
        """``logits`` and ``batch`` as in :meth:`spaces.tasks.Task.loss`."""
        if not self._share:
            return self._of_labels(logits, batch)
        assert self.teacher is not None
        assert batch.indices is not None, "the batches of this task do not number their examples"
        expected = self.teacher[batch.indices.to(self.teacher.device)]
        answers = logits
        if expected.dim() > 2:  # an answer per token
            labelled = batch.labels != IGNORE_INDEX
            answers, expected = logits[labelled], expected[:, : logits.shape[1]][labelled]
        distilled = distillation_loss(answers, expected, temperature=self._temperature)
        return (1 - self._share) * self._of_labels(logits, batch) + self._share * distilled

    def _of_labels(self, logits: Any, batch: Batch) -> Tensor:
        if not self._label_smoothing and self.weights is None:
            return self._task.loss(logits, batch)
        return F.cross_entropy(
            logits.flatten(0, -2),
            batch.labels.flatten(),
            self.weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self._label_smoothing,
        )


def distillation_loss(logits: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Mean Kullback-Leibler divergence of predictions from a teacher's, both ``(batch, classes)``, 0 if they are equal.

    By the square of the temperature, so that its gradient has the same scale at any (Hinton et al., 2015, section 2).
    No gradient flows to the teacher.
    """
    log_p = (teacher.detach() / temperature).log_softmax(-1)
    log_q = (logits / temperature).log_softmax(-1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * temperature**2


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """A weight ``(classes,)`` per class, inverse to its frequency, with a mean of 1 over the labels.

    As scikit-learn's ``class_weight="balanced"``; the weight of a class without an example is 0.
    """
    counts = torch.bincount(labels[labels != IGNORE_INDEX], minlength=classes)
    return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts), 0.0)
