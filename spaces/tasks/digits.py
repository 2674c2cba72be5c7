"""Handwritten digits as 64 pixel tokens: real data that ships with scikit-learn, 1797 images of 8 by 8 pixels.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import Split, check_whole
from spaces.tasks.sources.image_patches import Grid
from spaces.tasks.sources.image_task import ImageTask

IMAGES = 1797
PIXELS = 8  # height and width
WHITE = 16  # the largest gray level
BOUNDS = {"train": (0, 1077), "validation": (1077, 1437), "test": (1437, IMAGES)}  # 60, 20 and 20 percent


class Digits(ImageTask):
    """Accuracy of digit classification.

    Args:
        seed: random seed of the split into train, validation and test.
    """

    def __init__(self, *, seed: int = 0) -> None:
        check_whole(0, seed=seed)
        self.seed = seed
        self.use(Grid(height=PIXELS, width=PIXELS, channels=1, patch=None, levels=WHITE + 1), classes=10)
        self.chance = 0.1  # the classes are about equally frequent

    def read_images(self, split: Split) -> tuple[NDArray[np.uint8], Tensor]:
        """The images of a split, in a random order."""
        from sklearn.datasets import load_digits  # slow to import, and needed by this task only

        pixels, digits = load_digits(return_X_y=True)
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(self.seed))
        rows = order[slice(*BOUNDS[split])].numpy()
        return pixels[rows].astype(np.uint8).reshape(-1, 1, PIXELS, PIXELS), torch.from_numpy(digits[rows]).long()
