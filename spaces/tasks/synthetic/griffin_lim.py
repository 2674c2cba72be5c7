"""From a spectrogram back to sound, by finding phases that go with its magnitudes.

Griffin and Lim, "Signal Estimation from Modified Short-Time Fourier Transform", 1984: of the sound that fits best the
phases are kept, the magnitudes put back, and so on. Each round fits at least as well as the last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.tasks.recordings import HOP_S, WINDOW_S, mel_bands, spectrum

ROUNDS_OF_BANDS = 100


def magnitudes(energy: Tensor, rate: int) -> Tensor:
    """Magnitudes ``(bins // 2 + 1, frames)`` whose energy in mel bands is nearly ``energy`` ``(frames, bands)``.

    None is negative, for which updates multiply: Lee and Seung, "Algorithms for Non-negative Matrix Factorization",
    2001, of which one factor is known here.
    """
    weights = mel_bands(rate, _bins(rate), energy.shape[1])
    aim = weights.T @ energy.T
    power = aim
    for _ in range(ROUNDS_OF_BANDS):
        power = power * aim / (weights.T @ (weights @ power)).clamp(min=1e-12)
    return power.sqrt()


def griffin_lim(magnitude: Tensor, rate: int, *, rounds: int = 60, seed: int = 0) -> Tensor:
    """Sound ``(samples,)`` whose spectrogram is nearly ``magnitude`` ``(bins // 2 + 1, frames)``; see ``spectrum``.

    The first phases are random, by ``seed``.
    """
    turns = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(seed))
    samples = _sound(torch.polar(magnitude, 2 * torch.pi * turns), rate)
    for _ in range(rounds):
        samples = _sound(torch.polar(magnitude, spectrum(samples, rate).angle()), rate)
    return samples


def _sound(frames: Tensor, rate: int) -> Tensor:
    """The sound whose spectrum is the nearest to ``frames``, by least squares."""
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    shape = torch.hann_window(window)[:, None]
    cut = torch.fft.irfft(frames, n=_bins(rate), dim=0)[:window]
    length = window + hop * (frames.shape[1] - 1)

    def overlapped(windows: Tensor) -> Tensor:
        return F.fold(windows[None], (1, length), (1, window), stride=(1, hop))[0, 0, 0]

    # At both ends windows are nearly 0, and dividing by them would only enlarge what does not fit.
    return overlapped(cut * shape) / overlapped((shape**2).expand_as(cut)).clamp(min=1e-2)


def _bins(rate: int) -> int:
    return 1 << (round(WINDOW_S * rate) - 1).bit_length()
