"""Hyperparameters of training: the ``train`` section of a space."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.dimensions import check_whole


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The ``train`` section of an architecture: AdamW with linear warm-up, then a constant learning rate.

    The schedule does not depend on when a trial is stopped, so metrics at the same epoch are comparable.

    Args:
        epochs: passes over the training split.
        lr: learning rate after warm-up.
        batch_size: examples a step; None for the task's default.
        warmup: share of all steps.
        weight_decay: of AdamW.
        clip: maximum gradient norm.
    """

    epochs: int
    lr: float
    batch_size: int | None = None
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_whole(1, epochs=self.epochs)
        if self.batch_size is not None:
            check_whole(1, batch_size=self.batch_size)
        for name, low, high in (("lr", 0.0, 1.0), ("clip", 0.0, float("inf"))):
            if not low < getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be above {low:g} and at most {high:g}")
        if not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"warmup={self.warmup!r}: it must be a share of all steps, at least 0 and below 1")
        if self.weight_decay < 0.0:
            raise ValueError(f"weight_decay={self.weight_decay!r}: it must be at least 0")
