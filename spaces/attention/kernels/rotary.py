"""Rotary position embeddings (RoPE): queries and keys are rotated by angles proportional to their positions.

Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.2. Neighbouring features, in
pairs, are complex numbers, multiplied by exp(i * position * rate), with rates from 1 down to nearly 1 / 10,000 unless
a checkpoint has others; the product of a query and a key then depends on their distance only. O(length) time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def rotary(head_dim: int, length: int, *, enabled: bool) -> nn.Module:
    """A module that rotates ``(batch, n, any number of heads * head_dim)``, or the identity unless ``enabled``.

    Its second argument is the position of the first token, 0 unless given, or the positions of all tokens, ``(n,)``.

    Raises:
        ValueError: ``head_dim`` is odd, so features cannot be paired.
    """
    if not enabled:
        return _Identity()
    if head_dim % 2:
        raise ValueError(
            f"rope=True: width / heads is {head_dim}: it must be even, since features are rotated in pairs"
        )
    return _Rotary(head_dim, length)


def is_rotary(rotation: nn.Module) -> bool:
    """Whether ``rotation``, from :func:`rotary`, is not the identity."""
    return isinstance(rotation, _Rotary)


def set_rates(module: nn.Module, rates: Sequence[float]) -> None:
    """Give all rotations within ``module`` other ``rates``, radians per position of each of the head_dim / 2 pairs."""
    for rotation in module.modules():
        if isinstance(rotation, _Rotary):
            rotation.set_rates(torch.tensor(rates, dtype=torch.float64))


def refuse_cross_attention(rotation: nn.Module) -> None:
    """Raise a ``ValueError`` if ``rotation``, from :func:`rotary`, is not the identity."""
    if is_rotary(rotation):
        raise ValueError(
            "rope=True: positions in two sequences do not count from one start;"
            " to attend to another sequence, construct the mechanism with rope=False"
        )


class _Rotary(nn.Module):
    """Multiplies pairs of features as complex numbers, in half the time of the sums of real products."""

    rotations: Tensor  # (length, 1, head_dim / 2), complex
    turns: Tensor  # the same as real numbers, (length, 1, head_dim / 2, 2): ONNX has no complex ones

    def __init__(self, head_dim: int, length: int) -> None:
        super().__init__()
        self._length = length
        self.set_rates(torch.exp(torch.arange(0, head_dim, 2, dtype=torch.float64) * (-math.log(10_000.0) / head_dim)))

    def set_rates(self, rates: Tensor) -> None:
        # In double precision: in single precision the angle of a position in the thousands is off by a thousandth.
        angles = (torch.arange(self._length)[:, None] * rates)[:, None]
        rotations = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        self.register_buffer("rotations", rotations, persistent=False)
        self.register_buffer("turns", torch.view_as_real(rotations), persistent=False)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        at = slice(start, start + x.shape[1]) if isinstance(start, int) else start
        precise = x.to(torch.promote_types(x.dtype, torch.float32))  # there are no half-precision complex numbers
        pairs = precise.unflatten(-1, (-1, self.rotations.shape[-1], 2))
        if torch.compiler.is_exporting():
            (a, b), (cosine, sine) = pairs.unbind(-1), self.turns[at].unbind(-1)
            return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(2).to(x.dtype)
        pairs = torch.view_as_complex(pairs)
        return torch.view_as_real(pairs * self.rotations[at]).flatten(2).to(x.dtype)


class _Identity(nn.Module):
    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        return x
