"""Spectrograms of made-up sounds, for tasks that generate their data.

A sound is two formants, peaks of energy over the bands, and sounds differ by where these lie (Peterson and Barney,
"Control Methods Used in a Study of the Vowels", 1952). A voice shifts them up or down. One sound glides into the next,
and each swells and fades.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FORMANTS = ((0.1, 0.4), (0.5, 0.9))  # where the two lie among the bands, as shares of their number
GLIDE = 5  # frames in which one sound's formants become the next one's
LEAST_BANDS = 8  # in which two formants can be told apart


def chart(sounds: int, bands: int) -> Tensor:
    """The first and second formant of each sound in the middle voice, in bands ``(sounds, 2)``."""
    highest = bands - 1
    across = -(-sounds // 2)
    order = torch.randperm(sounds, generator=torch.Generator().manual_seed(7))
    (low, high), (lower, higher) = FORMANTS
    first = torch.linspace(low * highest, high * highest, 2)[order // across]
    second = torch.linspace(lower * highest, higher * highest, across)[order % across]
    return torch.stack([first, second], dim=1)


def spoken(characters: int, bands: int) -> Tensor:
    """The formants of an alphabet, likewise; its first character is a space, a neutral sound between all others."""
    letters = chart(characters - 1, bands)
    return torch.cat([letters.mean(0, keepdim=True), letters])


def timing(ends: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Which sound each frame is of and how far it has swollen, 0..1; ``ends`` ``(rows, sounds)`` are in frames.

    Both are ``(rows, length)``; frames after the last end are of the last sound, which has faded.
    """
    time = torch.arange(length).expand(len(ends), -1) + 0.5
    at = torch.searchsorted(ends[:, :-1].contiguous(), time)
    starts = F.pad(ends[:, :-1], (1, 0)).gather(1, at)
    passed = (time - starts) / (ends.gather(1, at) - starts)
    return at, torch.sin(torch.pi * passed.clamp(0, 1)).clamp(min=0).sqrt()


def energy(formants: Tensor, higher: Tensor, bands: int) -> Tensor:
    """Two peaks a frame, ``(rows, length, bands)``.

    ``formants`` ``(rows, length, 2)`` are those of each frame's sound in the middle voice, before it glides; ``higher``
    ``(rows, 2)``, or ``(rows, 1)`` for both, is by how many bands a row's voice shifts them.
    """
    formants = F.pad(formants.transpose(1, 2), (GLIDE // 2, GLIDE // 2), mode="replicate")
    formants = F.avg_pool1d(formants, GLIDE, stride=1).transpose(1, 2) + higher[:, None]
    from_peak = torch.arange(bands)[:, None] - formants[:, :, None]
    return torch.exp(-(from_peak**2) / 2).sum(-1)  # each about a band wide to either side
