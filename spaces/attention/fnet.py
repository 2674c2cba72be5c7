"""Fourier transforms instead of attention: the real part of the 2D transform over tokens and features.

Lee-Thorp et al., "FNet: Mixing Tokens with Fourier Transforms", 2021, section 3; with the orthonormal scaling, which
the paper leaves to layer norm. It has no parameters. O(length * width * log(length * width)) time. It cannot be causal:
every frequency sums over all tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spaces.attention import Mechanism, Shape


class FNetAttention(Mechanism):
    """Fourier mixing; it has no settings, and ``heads`` makes no difference."""

    no_cross_attention = "fnet cannot attend to another sequence: its transform runs along one"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if shape.causal:
            raise ValueError("causal=True: fnet sums up all tokens in every frequency, so it cannot hide the future")

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The transform over the tokens that are not padding, in their order."""
        if not x.shape[0]:  # the CPU transform does not accept an empty batch,
            return x
        precise = x if x.dtype == torch.float64 else x.float()  # nor half precision
        if padding is None:
            return torch.fft.fft2(precise, norm="ortho").real.to(x.dtype)
        order = padding.sort(dim=1, stable=True).indices[..., None].expand_as(x)  # padding last
        tokens = torch.fft.fft(precise.gather(1, order), norm="ortho")
        mixed = fourier(tokens, (~padding).sum(1)).real.to(x.dtype)
        return torch.zeros_like(mixed).scatter(1, order, mixed)


def fourier(x: Tensor, lengths: Tensor) -> Tensor:
    """The orthonormal transform over the first ``lengths`` ``(batch,)`` of the rows of ``x`` ``(batch, n, d)``.

    The remaining rows of ``x`` must be 0; the remaining rows of the result are undefined. Because every sample has its
    own length, this is Bluestein's chirp transform, 1970: with -2 j k = (j - k)^2 - j^2 - k^2 the sum over
    exp(-2 pi i j k / length) is a convolution, for which one FFT size serves all samples.
    """
    n, lengths = x.shape[1], lengths.clamp(min=1)[:, None]
    square = torch.arange(n, device=x.device) ** 2
    # Reduced modulo the period of the chirp, 2 * length, in exact integers.
    angle = (square % (2 * lengths)).to(x.real.dtype) * math.pi / lengths
    chirp = torch.polar(torch.ones_like(angle), angle)
    size = 1 << (2 * n - 1).bit_length()
    both_sides = torch.cat([chirp, chirp.new_zeros(x.shape[0], size - 2 * n + 1), chirp[:, 1:].flip(1)], dim=1)
    spectrum = torch.fft.fft(x * chirp.conj()[..., None], size, dim=1) * torch.fft.fft(both_sides)[..., None]
    return torch.fft.ifft(spectrum, dim=1)[:, :n] * (chirp.conj() / lengths.to(angle.dtype).sqrt())[..., None]
