"""Rotary positions: queries and keys are turned by angles that grow with their positions.

Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.2. Neighbouring features, in
pairs, are complex numbers, times exp(i * position * rate), with rates from 1 down to nearly 1 / 10,000; the product of
a query and a key then depends on how far apart they stand, not on where. O(length) time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def rotary(rope: bool, *, width: int, heads: int, length: int) -> nn.Module:
    """If ``rope``, a module that turns ``(batch, n, any number of heads * head_width)``, else one that does nothing.

    Its second argument is the position of the first token, 0 unless given, or those of all, ``(n,)``.

    Raises:
        ValueError: there is no pairing the features of a head.
    """
    if not rope:
        return _Still()
    if width // heads % 2:
        raise ValueError(f"rope=True: width={width}, heads={heads}: width / heads must be even, to be turned in pairs")
    return _Rotary(width // heads, length)


def refuse_across(turning: nn.Module) -> None:
    """Raise a ``ValueError`` if what :func:`rotary` gave turns anything."""
    if isinstance(turning, _Rotary):
        raise ValueError(
            "rope=True: positions in two sequences do not count from one start;"
            " to attend to another sequence, construct the mechanism with rope=False"
        )


class _Rotary(nn.Module):
    """Multiplies pairs of features as complex numbers: half the time of sums of real products."""

    turns: Tensor  # (length, 1, head_width / 2), complex

    def __init__(self, head_width: int, length: int) -> None:
        super().__init__()
        # In double precision: rounded, the angle of a position in the thousands is off by a thousandth.
        rates = torch.exp(torch.arange(0, head_width, 2, dtype=torch.float64) * (-math.log(10_000.0) / head_width))
        angles = (torch.arange(length)[:, None] * rates)[:, None]
        turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        at = slice(start, start + x.shape[1]) if isinstance(start, int) else start
        precise = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision knows no complex numbers
        pairs = torch.view_as_complex(precise.unflatten(-1, (-1, self.turns.shape[-1], 2)))
        return torch.view_as_real(pairs * self.turns[at]).flatten(2).to(x.dtype)


class _Still(nn.Module):
    """Everything stays as it is."""

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        return x
