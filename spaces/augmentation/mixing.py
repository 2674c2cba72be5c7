"""Mixup: training on convex combinations of two examples and of their losses.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. As in the paper's implementation, a batch is mixed with
a permutation of itself, by one share.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spaces.tasks import Batch


class Mixed(NamedTuple):
    """A mixed batch, whose loss is ``share * loss(labels) + (1 - share) * loss(other_labels)``."""

    batch: Batch  # with the labels of the first examples
    other_labels: Tensor  # of the second ones
    share: float  # of the first ones


def mixup(batch: Batch, alpha: float) -> Mixed:
    """Mix frames, or gray levels, with a share from the beta distribution of ``alpha`` and ``alpha``."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(batch.inputs), device=batch.inputs.device)
    inputs, padding = batch.inputs, batch.padding
    if padding is not None:
        inputs = inputs.masked_fill(padding[:, :, None], 0.0)
        padding = padding & padding[order]
    mixed = share * inputs + (1 - share) * inputs[order]
    if not inputs.is_floating_point():
        mixed = mixed.round().long()
    return Mixed(batch._replace(inputs=mixed, padding=padding), batch.labels[order], share)
