"""Hyperparameters of training: the ``train`` section of a space."""

from __future__ import annotations

from dataclasses import dataclass

from search.training.schedule import SCHEDULES
from spaces.augmentation import AugmentSettings
from spaces.dimensions import check_above, check_number, check_whole

CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(AugmentSettings):
    """The ``train`` section of an architecture: AdamW with linear warm-up, then a schedule of the learning rate.

    No schedule depends on when a trial is stopped, so metrics at the same epoch are comparable. The settings of
    :class:`~spaces.augmentation.AugmentSettings` are keys of the same section.

    Args:
        epochs: passes over the training split.
        lr: learning rate after warm-up, the highest of the schedule.
        batch_size: examples a batch; None for the task's default.
        accumulate: batches per optimizer step; the sum of their gradients is divided by this number, also where fewer
            are left at the end of an epoch.
        warmup: share of all steps.
        schedule: after warm-up: ``constant``, ``linear``, ``cosine`` or ``wsd``, see :mod:`search.training.schedule`.
        decay: of ``wsd``: the share of the steps after warm-up in which the learning rate decays.
        weight_decay: of AdamW, of matrices and embeddings; biases and the gains of normalization have none.
        clip: maximum gradient norm.
        label_smoothing: probability mass that the training loss spreads over all classes (Szegedy et al., 2016).
        class_weights: ``none``, or ``balanced``: in the training loss, a class counts by the inverse of its frequency.
        distillation: share of the training loss that is the divergence from a teacher's predictions, where there is one
            (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015); the rest is that of the labels.
        temperature: by which the logits of both are divided in it.
        hidden: weight of the difference from the parent's hidden states after each block, which is added to the loss
            where a network is compressed, see :mod:`search.training.imitation`.
        relations: weight of the difference from its similarities of tokens after the last block, likewise.
        ema: decay per step of the moving average of the weights, which is evaluated in place of them; 0: no average.
        keep_best: whether the weights of the epoch with the best validation metric count, instead of the last ones.
    """

    epochs: int
    lr: float
    batch_size: int | None = None
    accumulate: int = 1
    warmup: float = 0.05
    schedule: str = "constant"
    decay: float = 0.2
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    distillation: float = 0.0
    temperature: float = 2.0
    hidden: float = 0.0
    relations: float = 0.0
    ema: float = 0.0
    keep_best: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, epochs=self.epochs, accumulate=self.accumulate)
        if self.batch_size is not None:
            check_whole(1, batch_size=self.batch_size)
        for name, low, high in (("lr", 0.0, 1.0), ("clip", 0.0, float("inf")), ("decay", 0.0, 1.0)):
            if not low < getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be above {low:g} and at most {high:g}")
        if not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"warmup={self.warmup!r}: it must be a share of all steps, at least 0 and below 1")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r}: it must be {', '.join(SCHEDULES)}")
        check_number(0.0, weight_decay=self.weight_decay, hidden=self.hidden, relations=self.relations)
        check_number(0.0, 1.0, distillation=self.distillation)
        check_above(0.0, temperature=self.temperature)
        for name in ("label_smoothing", "ema"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be at least 0 and below 1")
        if self.class_weights not in CLASS_WEIGHTS:
            raise ValueError(f"class_weights={self.class_weights!r}: it must be {' or '.join(CLASS_WEIGHTS)}")
