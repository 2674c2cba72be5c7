"""Where a token stands, added to what it is: learned, or as sines and cosines, or nothing.

Rotary positions act on queries and keys, so they are a knob of the mechanisms that compare these, ``rope``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def positions(kind: str, *, length: int, width: int) -> nn.Module:
    """A module that adds positions from ``start`` on to ``(batch, n, width)``.

    Args:
        kind: ``learned``, ``sinusoidal`` or ``none``.
        length: the longest sequence.
        width: features per token.
    """
    if kind not in _KINDS:
        raise ValueError(f"positions={kind!r}: it must be {', '.join(_KINDS)}")
    return _KINDS[kind](length, width)


class _Learned(nn.Module):
    """A vector for each position."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        # 0.2 rather than the usual 0.02: local patterns are then learned within seconds.
        self.table = nn.Parameter(torch.randn(length, width) * 0.2)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return x + self.table[start : start + x.shape[1]]


class _Sinusoidal(nn.Module):
    """Waves of lengths from 2 pi to 10,000 * 2 pi (Vaswani et al., 2017, section 3.5), scaled by a learned number.

    The scale starts at 0.3, so that their size is that of learned positions.
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
        return x + self.scale * self.table[start : start + x.shape[1]]


class _None(nn.Module):
    """Only what a mechanism knows of order by itself."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return x


_KINDS = {"learned": _Learned, "sinusoidal": _Sinusoidal, "none": _None}
