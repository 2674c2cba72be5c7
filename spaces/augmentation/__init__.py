"""Augmentation of training batches, by kind of input: images, frames of spectrograms, token ids.

All draws are from torch's global generator, so that a training that seeds it can be resumed exactly. Batches of
validation and test are never augmented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spaces.augmentation.frames import FrameAugmentation
from spaces.augmentation.images import ImageAugmentation
from spaces.augmentation.tokens import TokenDropout
from spaces.dimensions import check_number, check_whole
from spaces.tasks import Batch, Task


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Settings of all augmentations; with the defaults there are none.

    Args:
        shift: images: pixels by which an image is moved at most, in each direction.
        flip: images: probability of a horizontal flip.
        crop: images: smallest share of the area that a random crop has, which is resized to the full size; 1: no crop.
        erase: images: probability that a random rectangle is replaced by noise.
        time_shift: frames: share of the duration by which a recording is moved at most, in either direction.
        time_masks: frames: number of masked intervals of time.
        time_mask: frames: share of the duration that each of them has at most.
        band_masks: frames: number of masked intervals of bands.
        band_mask: frames: share of the bands that each of them has at most.
        token_dropout: token ids: probability that a token is removed, or replaced where there is an output per token.
        mixup: images and frames: alpha of the beta distribution of the shares of two mixed examples; 0: no mixing.
    """

    shift: int = 0
    flip: float = 0.0
    crop: float = 1.0
    erase: float = 0.0
    time_shift: float = 0.0
    time_masks: int = 0
    time_mask: float = 0.1
    band_masks: int = 0
    band_mask: float = 0.2
    token_dropout: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        check_whole(0, shift=self.shift, time_masks=self.time_masks, band_masks=self.band_masks)
        check_number(0.0, 1.0, flip=self.flip, erase=self.erase, time_mask=self.time_mask, band_mask=self.band_mask)
        check_number(0.0, mixup=self.mixup)
        check_number(0.05, 1.0, crop=self.crop)
        check_number(0.0, 0.5, time_shift=self.time_shift)
        check_number(0.0, 0.9, token_dropout=self.token_dropout)


def augmentations(settings: AugmentSettings, task: Task) -> list[Callable[[Batch], Batch]]:
    """The functions that augment a training batch, except :func:`spaces.augmentation.mixing.mixup`.

    ``settings`` must fit the task, see :func:`unsupported`.
    """
    found: list[Callable[[Batch], Batch]] = []
    if settings.shift or settings.flip or settings.crop < 1 or settings.erase:
        assert task.image_shape is not None
        found.append(
            ImageAugmentation(
                task.image_shape,
                task.spec,
                shift=settings.shift,
                flip=settings.flip,
                crop=settings.crop,
                erase=settings.erase,
            )
        )
    if settings.time_shift or settings.time_masks or settings.band_masks:
        found.append(
            FrameAugmentation(
                time_shift=settings.time_shift,
                time_masks=settings.time_masks,
                time_mask=settings.time_mask,
                band_masks=settings.band_masks,
                band_mask=settings.band_mask,
            )
        )
    if settings.token_dropout:
        removes = not task.spec.per_token or task.spec.answer_length is not None
        found.append(TokenDropout(settings.token_dropout, removes=removes))
    return found


def unsupported(settings: AugmentSettings, task: Task) -> list[str]:
    """Error messages for the augmentations that do not fit the task."""
    kind, one_class = _kind(task), not task.spec.per_token
    rules = [
        (("shift", "flip", "crop", "erase"), "images", kind == "images"),
        (("time_masks", "band_masks"), "frames, such as spectrograms", kind == "frames"),
        (("time_shift",), "frames with a label per recording", kind == "frames" and one_class),
        (
            ("token_dropout",),
            "token ids of texts, and a loss over classes",
            kind == "token ids" and not task.spec.ordinal and task.uses_cross_entropy,
        ),
        (("mixup",), "images or frames with a label per example", kind in ("images", "frames") and one_class),
    ]
    defaults = AugmentSettings()
    return [
        f"{name}={getattr(settings, name)!r}: it is for {accepted}; {type(task).__name__} has "
        f"{kind}{'' if one_class else ' with a label per token'}"
        for names, accepted, fits in rules
        for name in names
        if not fits and getattr(settings, name) != getattr(defaults, name)
    ]


def _kind(task: Task) -> str:
    if task.subtasks:
        return "several tasks"
    if task.image_shape is not None:
        return "images"
    return "frames" if task.spec.features is not None else "token ids"
