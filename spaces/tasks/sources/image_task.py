"""The images of a task, which the patch size turns into tokens: it may be a dimension of a space's ``input``."""

from __future__ import annotations

import copy
import dataclasses
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import Batch, Examples, Split, Task
from spaces.tasks.sources.image_patches import Grid
from spaces.tasks.sources.stored import LARGE


class ImageTask(Task):
    """Image classification; a subclass sets :attr:`grid` and reads images, from which tokens are made here.

    Attributes:
        grid: how images become tokens; None if the data turns out to be no images.
    """

    grid: Grid | None

    def use(self, grid: Grid, classes: int) -> None:
        """Make tokens by ``grid``: sets what follows from it."""
        self.grid, self.image_shape, self.spec = grid, grid.shape, grid.spec(classes)

    def with_input(self, *, patch: int | None = None) -> Self:
        """The same images, cut into patches of ``patch`` by ``patch`` pixels; they are read once."""
        if patch is None:
            return self
        if self.grid is None:
            raise ValueError(f"patch={patch}: it must be null, as the inputs are no images")
        varied = copy.copy(self)
        varied.__dict__ = {name: value for name, value in vars(self).items() if name not in ("_loaded", "_variants")}
        varied.__dict__["_images"] = self._images
        varied.use(dataclasses.replace(self.grid, patch=patch), self.spec.classes)
        return varied

    def read_images(self, split: Split) -> tuple[NDArray[np.uint8], Tensor]:
        """Pixels ``(images, channels, height, width)``, which may be memory-mapped, and labels ``(images,)``."""
        raise NotImplementedError

    def examples(self, split: Split) -> Examples:
        """Patches ``(images, length, features)`` or pixels ``(images, length)``, and classes ``(images,)``."""
        assert self.grid is not None
        if split not in self._images:
            self._images[split] = self.read_images(split)
        examples = ImageExamples(*self._images[split], self.grid)
        return examples if 4 * examples.pixels.size >= LARGE else examples.select(torch.arange(examples.size))

    @cached_property
    def _images(self) -> dict[Split, tuple[NDArray[np.uint8], Tensor]]:
        """Those read so far, shared by the task's variants."""
        return {}


@dataclasses.dataclass(frozen=True)
class ImageExamples:
    """Images that become tokens when they are selected: as tokens they would take four times the memory or more."""

    pixels: NDArray[np.uint8]  # (images, channels, height, width)
    labels: Tensor
    grid: Grid

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.labels)

    @property
    def lengths(self) -> None:
        """None: no image is padded."""

    def select(self, indices: Tensor) -> Batch:
        """The examples at ``indices``, in that order."""
        return Batch(self.grid.tokens(torch.from_numpy(self.pixels[indices.numpy()])), None, self.labels[indices])
