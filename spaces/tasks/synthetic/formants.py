"""Synthesis of spectrograms for tasks that generate their data.

A sound consists of two formants, peaks of energy over the bands, and sounds differ in their positions (Peterson and
Barney, "Control Methods Used in a Study of the Vowels", 1952). A voice shifts the formants up or down. The formants of
consecutive sounds glide into each other, and each sound fades in and out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FORMANTS = ((0.1, 0.4), (0.5, 0.9))  # ranges of the two formants, as fractions of the bands
GLIDE = 5  # frames of the transition between two sounds
MIN_BANDS = 8  # fewer cannot separate two formants


def formant_chart(sounds: int, bands: int) -> Tensor:
    """The first and second formant of each sound without a shift by the voice, in bands ``(sounds, 2)``."""
    highest = bands - 1
    across = -(-sounds // 2)
    order = torch.randperm(sounds, generator=torch.Generator().manual_seed(7))
    (low, high), (lower, higher) = FORMANTS
    first = torch.linspace(low * highest, high * highest, 2)[order // across]
    second = torch.linspace(lower * highest, higher * highest, across)[order % across]
    return torch.stack([first, second], dim=1)


def character_formants(characters: int, bands: int) -> Tensor:
    """The formants of an alphabet ``(characters, 2)``; its first character, the space, has the mean of all others."""
    letters = formant_chart(characters - 1, bands)
    return torch.cat([letters.mean(0, keepdim=True), letters])


def timing(ends: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The index of each frame's sound and its envelope 0..1, both ``(rows, length)``.

    ``ends`` ``(rows, sounds)`` are the ends of the sounds in frames. Frames after the last end belong to the last
    sound, with envelope 0.
    """
    time = torch.arange(length).expand(len(ends), -1) + 0.5
    at = torch.searchsorted(ends[:, :-1].contiguous(), time)
    starts = F.pad(ends[:, :-1], (1, 0)).gather(1, at)
    elapsed = (time - starts) / (ends.gather(1, at) - starts)
    return at, torch.sin(torch.pi * elapsed.clamp(0, 1)).clamp(min=0).sqrt()


def energy(formants: Tensor, voice_shift: Tensor, bands: int) -> Tensor:
    """The spectrogram ``(rows, length, bands)``, with two peaks per frame.

    Args:
        formants: those of each frame's sound, without transitions and voice, ``(rows, length, 2)``.
        voice_shift: shift of the formants by the row's voice in bands, ``(rows, 2)``, or ``(rows, 1)`` for both.
        bands: number of bands.
    """
    formants = F.pad(formants.transpose(1, 2), (GLIDE // 2, GLIDE // 2), mode="replicate")
    formants = F.avg_pool1d(formants, GLIDE, stride=1).transpose(1, 2) + voice_shift[:, None]
    from_peak = torch.arange(bands)[:, None] - formants[:, :, None]
    return torch.exp(-(from_peak**2) / 2).sum(-1)  # the standard deviation of a peak is one band
