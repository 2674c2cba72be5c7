"""Griffin-Lim: from a magnitude spectrogram to audio, by iterative estimation of the phases.

Griffin and Lim, "Signal Estimation from Modified Short-Time Fourier Transform", 1984: each iteration keeps the phases
of the best-fitting audio and restores the magnitudes. The error never increases.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.tasks.sources.log_mel import HOP_S, WINDOW_S, mel_bands, spectrum

MEL_ITERATIONS = 100


def magnitudes(energy: Tensor, rate: int) -> Tensor:
    """Magnitudes ``(bins // 2 + 1, frames)`` whose energy in mel bands approximates ``energy`` ``(frames, bands)``.

    By multiplicative updates, which keep them non-negative: Lee and Seung, "Algorithms for Non-negative Matrix
    Factorization", 2001, with one of the two factors fixed.
    """
    weights = mel_bands(rate, _bins(rate), energy.shape[1])
    target = weights.T @ energy.T
    power = target
    for _ in range(MEL_ITERATIONS):
        power = power * target / (weights.T @ (weights @ power)).clamp(min=1e-12)
    return power.sqrt()


def griffin_lim(magnitude: Tensor, rate: int, *, iterations: int = 60, seed: int = 0) -> Tensor:
    """Samples ``(samples,)`` whose :func:`spectrum` approximates ``magnitude`` ``(bins // 2 + 1, frames)``.

    The initial phases are random, with ``seed``.
    """
    turns = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(seed))
    samples = _inverse_spectrum(torch.polar(magnitude, 2 * torch.pi * turns), rate)
    for _ in range(iterations):
        samples = _inverse_spectrum(torch.polar(magnitude, spectrum(samples, rate).angle()), rate)
    return samples


def _inverse_spectrum(frames: Tensor, rate: int) -> Tensor:
    """The samples whose spectrum is closest to ``frames`` in the least-squares sense."""
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    shape = torch.hann_window(window)[:, None]
    windows = torch.fft.irfft(frames, n=_bins(rate), dim=0)[:window]
    length = window + hop * (frames.shape[1] - 1)

    def overlap_add(windows: Tensor) -> Tensor:
        return F.fold(windows[None], (1, length), (1, window), stride=(1, hop))[0, 0, 0]

    # At both ends the windows are almost 0; dividing by them would amplify errors.
    return overlap_add(windows * shape) / overlap_add((shape**2).expand_as(windows)).clamp(min=1e-2)


def _bins(rate: int) -> int:
    return 1 << (round(WINDOW_S * rate) - 1).bit_length()
