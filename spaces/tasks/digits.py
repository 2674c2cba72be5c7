"""Handwritten digits as 64 pixel tokens: real data that ships with scikit-learn, 1797 images of 8 by 8 pixels.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import torch

from spaces.tasks import Batch, Split, Task, TaskSpec, check_whole

IMAGES = 1797
PIXELS = 8  # height and width
BOUNDS = {"train": (0, 1077), "validation": (1077, 1437), "test": (1437, IMAGES)}  # 60, 20 and 20 percent


class Digits(Task):
    """Accuracy of digit classification.

    Args:
        seed: random seed of the split into train, validation and test.
    """

    def __init__(self, *, seed: int = 0) -> None:
        check_whole(0, seed=seed)
        self.seed = seed
        self.image_shape = (1, PIXELS, PIXELS)
        self.spec = TaskSpec(length=64, vocabulary=17, ordinal=True, classes=10, per_token=False)
        self.chance = 0.1  # the classes are about equally frequent

    def examples(self, split: Split) -> Batch:
        """Pixels in row-major order, ``(images, 64)``, and digits ``(images,)``."""
        from sklearn.datasets import load_digits  # slow to import, and needed by this task only

        pixels, digits = load_digits(return_X_y=True)
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(self.seed))
        rows = order[slice(*BOUNDS[split])]
        return Batch(torch.from_numpy(pixels).long()[rows], None, torch.from_numpy(digits).long()[rows])
