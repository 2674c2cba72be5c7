"""Position embeddings that are added to the token embeddings: learned, sinusoidal or none.

Rotary position embeddings act on queries and keys instead, so they are a setting of the mechanisms, ``rope``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """Adds a learned vector per position to ``(batch, n, width)``, with positions counted from ``start``."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        # 0.2 rather than the usual 0.02: local patterns are then learned within seconds.
        self.table = nn.Parameter(torch.randn(length, width) * 0.2)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """``x`` plus the vectors of its positions."""
        return x + self.table[start : start + x.shape[1]]


class SinusoidalPositions(nn.Module):
    """Adds sines and cosines with wavelengths from 2 pi to 10,000 * 2 pi (Vaswani et al., 2017, section 3.5).

    They are multiplied by a learned scale, initially 0.3, which is about the norm of learned positions.
    """

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
        angles = torch.arange(length)[:, None] * rates
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
        self.register_buffer("table", table, persistent=False)
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """``x`` plus the scaled waves at its positions."""
        return x + self.scale * self.table[start : start + x.shape[1]]


class NoPositions(nn.Module):
    """Adds nothing: the order of tokens is known to the mechanisms and the short convolution only."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """``x``."""
        return x


POSITIONS: Mapping[str, type[nn.Module]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "none": NoPositions,
}
