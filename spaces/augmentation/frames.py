"""Augmentation of spectrograms: shifts in time, and masks of time and bands.

Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", 2019, without warping.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks import Batch


class FrameAugmentation:
    """Each recording of a batch gets its own draws. Masked values become 0, the mean of each band of log-mel frames.

    Args:
        time_shift: share of the duration at most; frames that are moved in repeat the first or the last one.
        time_masks: number of masked intervals of time.
        time_mask: share of the duration that each has at most.
        band_masks: number of masked intervals of bands.
        band_mask: share of the bands that each has at most.
    """

    def __init__(
        self, *, time_shift: float, time_masks: int, time_mask: float, band_masks: int, band_mask: float
    ) -> None:
        self._time_shift = time_shift
        self._time_masks, self._time_mask = time_masks, time_mask
        self._band_masks, self._band_mask = band_masks, band_mask

    def __call__(self, batch: Batch) -> Batch:
        """Inputs are ``(batch, frames, bands)``; padding stays where it is."""
        frames, padding = batch.inputs, batch.padding
        rows, length, bands = frames.shape
        if padding is None:
            lengths = torch.full((rows, 1), length, device=frames.device)
        else:
            lengths = (~padding).sum(1, keepdim=True)
        if self._time_shift:
            frames = shift_frames(frames, lengths, self._time_shift)
        if self._time_masks:
            masked = random_intervals(length, lengths, self._time_masks, self._time_mask)
            frames = frames.masked_fill(masked[:, :, None], 0.0)
        if self._band_masks:
            widths = torch.full_like(lengths, bands)
            masked = random_intervals(bands, widths, self._band_masks, self._band_mask)
            frames = frames.masked_fill(masked[:, None, :], 0.0)
        return batch._replace(inputs=frames)


def shift_frames(frames: Tensor, lengths: Tensor, share: float) -> Tensor:
    """Move each row of ``(batch, frames, bands)`` by up to ``share`` of its length, ``lengths`` ``(batch, 1)``."""
    draws = torch.rand(len(frames), 1, device=frames.device)
    shifts = ((2 * draws - 1) * share * lengths).round().long()
    at = torch.arange(frames.shape[1], device=frames.device)
    source = torch.where(at < lengths, (at - shifts).clamp(min=0).minimum(lengths - 1), at)
    return frames.gather(1, source[:, :, None].expand_as(frames))


def random_intervals(size: int, lengths: Tensor, count: int, share: float) -> Tensor:
    """Masks ``(batch, size)``, true in ``count`` random intervals of each row.

    An interval has from 0 to ``share`` of the row's length, ``lengths`` ``(batch, 1)``, and lies within it.
    """
    widths, starts = torch.rand(2, len(lengths), count, device=lengths.device)
    widths = (widths * ((share * lengths).floor() + 1)).floor()
    starts = (starts * (lengths - widths + 1)).floor()
    at = torch.arange(size, device=lengths.device)[:, None]
    return ((at >= starts[:, None]) & (at < (starts + widths)[:, None])).any(-1)
