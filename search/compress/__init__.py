"""Post-training search: a trained network is compressed layer by layer, and trials start from the compressed parts.

As in Puzzle (Bercovich et al. 2024, arXiv:2411.19146): each replacement of a sub-block (its attention or its
feed-forward network) is trained alone to imitate the sub-block (blockwise local distillation), and its damage to the
output of the whole network is measured. Damages and latencies of single replacements add up approximately, so the best
networks follow from dynamic programming. They open the study, whose trials learn from the parent's predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spaces.dimensions import check_whole


@dataclass(frozen=True, kw_only=True)
class CompressionSettings:
    """The section ``compression`` of a space.

    Args:
        parent: training settings of the parent, the whole network, in place of those in ``train``; without effect where
            the parent is a trained network, the run's ``teacher``.
        pattern: the parent's mechanisms, one per block; None: the first one of the space in all blocks.
        steps: optimizer steps of the blockwise distillation of a replacement; 0: replacements are not trained.
        lr: its learning rate.
        tokens: of the training examples that it learns from, and of the validation examples that damages are measured
            on, at most.
        predicted: how many networks of the predicted front open the study; with 0 nothing is predicted, and the sampler
            has no prior.
    """

    parent: Mapping[str, Any] = field(default_factory=dict)
    pattern: Sequence[str] | None = None
    steps: int = 60
    lr: float = 5e-4
    tokens: int = 16_384
    predicted: int = 32

    def __post_init__(self) -> None:
        check_whole(0, steps=self.steps, predicted=self.predicted)
        check_whole(1, tokens=self.tokens)
        if not 0 < self.lr <= 1:
            raise ValueError(f"lr={self.lr!r}: it must be above 0 and at most 1")
