"""Handwritten digits as a vision transformer sees images: upsampled, and cut into square patches.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 3.1. The images are those of the task ``digits``;
upsampling makes the sequence long enough for mechanisms to differ.
"""

from __future__ import annotations

import torch.nn.functional as F

from spaces.tasks import Batch, Split, Task, TaskSpec, check_whole
from spaces.tasks.digits import BOUNDS, PIXELS, Digits
from spaces.tasks.sources.image_patches import extract_patches

WHITE = 16  # the largest gray level


class Patches(Task):
    """Accuracy of digit classification.

    Args:
        side: height and width in pixels after upsampling, at least 8.
        patch: height and width of a patch in pixels; must divide ``side``.
        train: training images, 1..1077.
        seed: random seed of the split into train, validation and test.
    """

    batch_size = 16

    def __init__(self, *, side: int = 24, patch: int = 2, train: int = 1077, seed: int = 0) -> None:
        check_whole(PIXELS, side=side)
        check_whole(1, patch=patch, train=train)
        if side % patch:
            raise ValueError(f"side={side}, patch={patch}: patch must divide side")
        available = BOUNDS["train"][1]
        if train > available:
            raise ValueError(f"train={train}: it must be 1..{available}")
        self.digits = Digits(seed=seed)
        self.side, self.patch, self.train = side, patch, train
        self.image_shape = (1, side, side)
        length = (side // patch) ** 2
        self.spec = TaskSpec(
            length=length, features=patch**2, classes=10, per_token=False, image_shape=self.image_shape
        )
        self.chance = self.digits.chance

    def with_input(self, *, patch: int | None = None) -> Patches:
        """The same images, cut into other patches."""
        varied = Patches(side=self.side, patch=patch or self.patch, train=self.train, seed=self.digits.seed)
        varied.digits = self.digits  # with its data
        return varied

    def examples(self, split: Split) -> Batch:
        """Patches in row-major order, ``(images, patches, pixels of a patch)`` in -1..1, and digits ``(images,)``."""
        pixels, _, digits, *_ = self.digits.examples(split)
        rows = slice(self.train if split == "train" else None)
        images = pixels[rows].view(-1, 1, PIXELS, PIXELS) * 2.0 / WHITE - 1
        images = F.interpolate(images, size=self.side, mode="bilinear", align_corners=False)
        return Batch(extract_patches(images, self.patch), None, digits[rows])
