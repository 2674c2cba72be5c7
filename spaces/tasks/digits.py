"""Handwritten digits as 64 pixel tokens; real data that scikit-learn brings along, 1797 images of 8 by 8 pixels.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import torch

from spaces.tasks import Batch, Split, Task, TaskSpec, check_whole

IMAGES = 1797
BOUNDS = {"train": (0, 1077), "validation": (1077, 1437), "test": (1437, IMAGES)}  # 60, 20 and 20 percent


class Digits(Task):
    """Fraction of images whose digit is told.

    Args:
        seed: of the order in which the images are cut into splits.
    """

    def __init__(self, *, seed: int = 0) -> None:
        check_whole(0, seed=seed)
        self.seed = seed
        self.spec = TaskSpec(length=64, vocabulary=17, classes=10, per_token=False)  # a pixel's grey is 0..16
        self.chance = 0.1  # a uniform guess

    def examples(self, split: Split) -> Batch:
        """Pixels row by row, ``(images, 64)``, and digits ``(images,)``."""
        from sklearn.datasets import load_digits  # slow to import, and needed by this task alone

        pixels, digits = load_digits(return_X_y=True)
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(self.seed))
        rows = order[slice(*BOUNDS[split])]
        return Batch(torch.from_numpy(pixels).long()[rows], None, torch.from_numpy(digits).long()[rows])
