"""Fourier transforms instead of attention: the real part of the transform over tokens and features.

Lee-Thorp et al., "FNet: Mixing Tokens with Fourier Transforms", 2021, section 3; divided by the square roots of both
sizes, which the paper leaves to its normalisation. Nothing is learned. O(length * width * log(length * width)) time.
It cannot be causal: every frequency sums up all tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spaces.attention import Mechanism


class FNetAttention(Mechanism):
    """Every token becomes a frequency; there are no knobs, and heads make no difference."""

    def __init__(self, *, width: int, heads: int, length: int, causal: bool = False) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if causal:
            raise ValueError("causal=True: fnet sums up all tokens in every frequency, so it cannot hide the future")

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The transform over the tokens that are not padding, however many, in their order."""
        if not len(x):  # a CPU knows no transforms of nothing,
            return x
        precise = x if x.dtype == torch.float64 else x.float()  # and none in half precision
        if padding is None:
            return torch.fft.fft2(precise, norm="ortho").real.to(x.dtype)
        order = padding.sort(dim=1, stable=True).indices[..., None].expand_as(x)  # padding last
        tokens = torch.fft.fft(precise.gather(1, order), norm="ortho")
        mixed = fourier(tokens, (~padding).sum(1)).real.to(x.dtype)
        return torch.zeros_like(mixed).scatter(1, order, mixed)

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done: the tokens of two sequences make no one transform."""
        raise ValueError("fnet cannot attend to another sequence: its transform runs along one")


def fourier(x: Tensor, lengths: Tensor) -> Tensor:
    """The orthonormal transform over the first ``lengths`` ``(batch,)`` of the rows of ``x`` ``(batch, n, d)``.

    Zeros must follow them; what follows the result's is of no meaning. As every sample has a length of its own, this is
    Bluestein's chirp transform, 1970: with -2 j k = (j - k)^2 - j^2 - k^2 the sum over exp(-2 pi i j k / length) is a
    convolution, for which transforms of one size serve all.
    """
    n, lengths = x.shape[1], lengths.clamp(min=1)[:, None]
    square = torch.arange(n, device=x.device) ** 2
    # Reduced while it is a whole number: a period of the chirp is 2 * length.
    angle = (square % (2 * lengths)).to(x.real.dtype) * math.pi / lengths
    chirp = torch.polar(torch.ones_like(angle), angle)
    size = 1 << (2 * n - 1).bit_length()
    both_sides = torch.cat([chirp, chirp.new_zeros(len(x), size - 2 * n + 1), chirp[:, 1:].flip(1)], dim=1)
    spectrum = torch.fft.fft(x * chirp.conj()[..., None], size, dim=1) * torch.fft.fft(both_sides)[..., None]
    return torch.fft.ifft(spectrum, dim=1)[:, :n] * (chirp.conj() / lengths.to(angle.dtype).sqrt())[..., None]
