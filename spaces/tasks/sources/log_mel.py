"""Log-mel spectrograms of audio.

A frame is the logarithm of the energy in triangular bands of equal width in mel, 2595 log10(1 + hertz / 700)
(O'Shaughnessy, "Speech Communication", 1987), minus its mean over the clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_S, HOP_S = 0.025, 0.010  # usual in speech recognition
FLOOR = 1e-6  # added to the energy before taking the logarithm


class Clip(NamedTuple):
    """The spectrogram of an audio file."""

    frames: Tensor  # (frames, bands)
    file_rate: int  # sample rate of the file in hertz


def frames_in(seconds: float) -> int:
    """Number of frames of a clip."""
    return 1 + int((seconds - WINDOW_S) / HOP_S + 1e-6)


def log_mel(samples: Tensor, rate: int, bands: int) -> Tensor:
    """``(samples,)`` to ``(frames, bands)``: 25 ms windows with a hop of 10 ms; the mean of each band is 0."""
    frequencies = spectrum(samples, rate)
    energy = mel_bands(rate, 2 * len(frequencies) - 2, bands) @ frequencies.abs().square()
    frames = (energy + FLOOR).log().T
    return frames - frames.mean(0)


def spectrum(samples: Tensor, rate: int) -> Tensor:
    """Short-time Fourier transform, ``(samples,)`` to complex ``(bins // 2 + 1, frames)``.

    Raises:
        ValueError: there are fewer samples than in a window.
    """
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    if len(samples) < window:
        raise ValueError(f"{len(samples)} samples, shorter than a window of {window}")
    bins = 1 << (window - 1).bit_length()
    shape = F.pad(torch.hann_window(window), (0, bins - window))
    padded = F.pad(samples, (0, bins - window))  # torch centres a window in its bins; ours begins at the first
    return torch.stft(padded, bins, hop, window=shape, center=False, return_complex=True)


def mel_bands(rate: int, bins: int, bands: int) -> Tensor:
    """Triangular filters ``(bands, bins // 2 + 1)``: each rises from the previous peak to its own and falls again."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    peaks = 700 * (10 ** (torch.linspace(0, highest, bands + 2) / 2595) - 1)
    hertz = torch.arange(bins // 2 + 1) * rate / bins
    below, peak, above = (peaks[at : at + bands, None] for at in range(3))
    return torch.minimum((hertz - below) / (peak - below), (above - hertz) / (above - peak)).clamp(min=0)


def pad_stack(clips: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor | None]:
    """Clips ``(frames, bands)`` padded to ``(clips, length, bands)``, and the padding mask, None without padding."""
    inputs = torch.stack([F.pad(clip, (0, 0, 0, length - len(clip))) for clip in clips])
    padding = torch.tensor([len(clip) for clip in clips])[:, None] <= torch.arange(length)
    return inputs, padding if padding.any() else None
