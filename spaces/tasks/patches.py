"""Handwritten digits as a vision transformer sees images: enlarged, and cut into square patches.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 3.1. The images are those of the task ``digits``, so
small that every patch is a token in its own right; enlarging makes the sequence long enough for mechanisms to differ.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from spaces.tasks import Batch, Split, Task, TaskSpec, check_whole
from spaces.tasks.digits import BOUNDS, Digits

PIXELS = 8  # a side, as the data has them
WHITE = 16  # the largest grey


class Patches(Task):
    """Fraction of images whose digit is told.

    Args:
        side: pixels a side after enlarging, at least 8.
        patch: pixels a side of a patch; must divide ``side``.
        train: images to learn from, 1..1077.
        seed: of the order in which the images are cut into splits.
    """

    batch_size = 16

    def __init__(self, *, side: int = 24, patch: int = 2, train: int = 1077, seed: int = 0) -> None:
        check_whole(PIXELS, side=side)
        check_whole(1, patch=patch, train=train)
        if side % patch:
            raise ValueError(f"side={side}, patch={patch}: patch must divide side")
        most = BOUNDS["train"][1]
        if train > most:
            raise ValueError(f"train={train}: it must be 1..{most}")
        self.digits = Digits(seed=seed)
        self.side, self.patch, self.train = side, patch, train
        self.spec = TaskSpec(length=(side // patch) ** 2, features=patch**2, classes=10, per_token=False)
        self.chance = self.digits.chance

    def examples(self, split: Split) -> Batch:
        """Patches row by row, ``(images, patches, pixels of a patch)`` of -1..1, and digits ``(images,)``."""
        pixels, _, digits, *_ = self.digits.cached(split)
        rows = slice(self.train if split == "train" else None)
        images = pixels[rows].view(-1, 1, PIXELS, PIXELS) * 2.0 / WHITE - 1
        images = F.interpolate(images, size=self.side, mode="bilinear", align_corners=False)
        return Batch(patches(images, self.patch), None, digits[rows])


def patches(images: Tensor, side: int) -> Tensor:
    """``(images, channels, height, width)`` to ``(images, patches, channels * side * side)``, row by row."""
    return F.unfold(images, kernel_size=side, stride=side).transpose(1, 2).contiguous()
