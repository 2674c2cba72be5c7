"""Handwritten digits as a vision transformer sees images: upsampled, and cut into square patches.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 3.1. The images are those of the task ``digits``;
upsampling makes the sequence long enough for mechanisms to differ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from spaces.tasks import Batch, Split, check_whole
from spaces.tasks.digits import BOUNDS, PIXELS, WHITE, Digits
from spaces.tasks.sources.image_patches import Grid
from spaces.tasks.sources.image_task import ImageTask

MAX_SIDE = 256  # all 1,797 images then take half a gigabyte


class Patches(ImageTask):
    """Accuracy of digit classification.

    Args:
        side: height and width in pixels after upsampling, 8..256.
        patch: height and width of a patch in pixels.
        train: training images, 1..1077.
        seed: random seed of the split into train, validation and test.
    """

    batch_size = 16

    def __init__(self, *, side: int = 24, patch: int = 2, train: int = 1077, seed: int = 0) -> None:
        check_whole(PIXELS, side=side)
        if side > MAX_SIDE:
            raise ValueError(f"side={side}: it must be {PIXELS}..{MAX_SIDE}")
        check_whole(1, train=train, patch=patch)
        available = BOUNDS["train"][1]
        if train > available:
            raise ValueError(f"train={train}: it must be 1..{available}")
        self.digits = Digits(seed=seed)
        self.train = train
        self.use(Grid(height=side, width=side, channels=1, patch=patch), classes=10)
        self.chance = self.digits.chance

    def examples(self, split: Split) -> Batch:
        """Patches in row-major order, ``(images, patches, pixels of a patch)`` in -1..1, and digits ``(images,)``."""
        assert self.grid is not None
        pixels, digits = self.digits.read_images(split)
        rows = slice(self.train if split == "train" else None)
        images = torch.from_numpy(pixels[rows]) * 2.0 / WHITE - 1
        images = F.interpolate(images, size=self.grid.height, mode="bilinear", align_corners=False)
        return Batch(self.grid.cut(images), None, digits[rows])
