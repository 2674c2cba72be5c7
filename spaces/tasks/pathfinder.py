"""Pathfinder of Long Range Arena: are two dots connected by a path of dashes, among distracting paths?

Linsley et al., "Learning long-range spatial dependencies with horizontal gated recurrent units", 2018; as a sequence of
gray pixels, Tay et al., "Long Range Arena", 2021. A folder such as ``pathfinder32`` contains a folder for each
difficulty, and this a ``metadata/N.npy`` for each batch of images: a row per image with its folder (``imgs/N``), file,
number, label (1 if connected, else 0), and parameters of the drawing. In the published files rows are lines of text,
despite the file name; the generator itself writes arrays of strings. The published folder has one empty image, which is
skipped. Its splits were never published; files are split by the hashes of their names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import SPLITS, Split, majority_share, split_sizes
from spaces.tasks.sources.bad_rows import read_usable
from spaces.tasks.sources.folders import existing_folder
from spaces.tasks.sources.image_patches import IMAGE_ERRORS, read_image, square_grid
from spaces.tasks.sources.image_task import ImageTask
from spaces.tasks.sources.splits import balanced, split_by_hash

NUMPY_MAGIC = b"\x93NUMPY"
LABELS = {"0": 0, "1": 1}


class Pathfinder(ImageTask):
    """Accuracy of binary classification.

    An image takes ``9 * side ** 2`` bytes of memory as pixels, ``5 * side ** 2`` as patches; many take ``side ** 2``.

    Args:
        folder: the folder of an image size, such as ``pathfinder32``, which contains the difficulties.
        difficulty: ``curv_baseline``, ``curv_contour_length_9`` or ``curv_contour_length_14``, the hardest, which is
            usually reported.
        side: height and width of the images in pixels.
        patch: height and width of a patch in pixels; null: each pixel is a token, by its gray level.
        train: training images at most, half of them connected; 80 % of the 200,000 are available.
        validation: validation images at most, likewise of 10 %.
        test: test images at most, likewise of 10 %.
    """

    class_names = ("apart", "joined")

    def __init__(
        self,
        *,
        folder: str | None = None,
        difficulty: str = "curv_contour_length_14",
        side: int = 32,
        patch: int | None = None,
        train: int = 5000,
        validation: int = 1000,
        test: int = 2000,
    ) -> None:
        grid = square_grid(side, "gray", patch)
        self.side = side
        parent = existing_folder(folder, "curv_contour_length_14 and other difficulties, such as pathfinder32")
        self.folder = parent / difficulty
        if not self.folder.is_dir():
            there = ", ".join(sorted(path.parent.name for path in parent.glob("*/metadata"))) or "none"
            raise ValueError(f"difficulty={difficulty!r}: no such folder in {str(parent)!r}; there are {there}")
        self.labels = self._metadata()
        limits = split_sizes(train=train, validation=validation, test=test)
        splits = split_by_hash(self.labels)
        self.files: dict[Split, list[str]] = {
            split: balanced(splits[split], limits[split], split, len(LABELS), label=self.labels.__getitem__)
            for split in SPLITS
        }
        self.use(grid, len(LABELS))
        self.chance = majority_share(self.labels[file] for file in self.files["validation"])

    def _metadata(self) -> dict[str, int]:
        """The label of each image file."""
        labels: dict[str, int] = {}
        for file in sorted(self.folder.glob("metadata/*.npy")):
            for number, row in enumerate(_rows(file), 1):
                if len(row) < 4 or row[3] not in LABELS:
                    raise ValueError(f"{file}, row {number}: {row}; it takes a folder, a file, a number, and 0 or 1")
                labels[f"{row[0]}/{row[1]}"] = LABELS[row[3]]
        if not labels:
            raise ValueError(f"{self.folder}: no metadata/*.npy with any rows")
        return labels

    def read_images(self, split: Split) -> tuple[NDArray[np.uint8], Tensor]:
        """Unusable files are skipped and counted in a warning."""
        kept, images = read_usable(self.folder, split, self.files[split], self._read, IMAGE_ERRORS)
        return torch.stack(images).numpy(), torch.tensor([self.labels[file] for file in kept])

    def _read(self, file: str) -> Tensor:
        image = read_image(self.folder / file, 1)
        _, height, width = image.shape
        if (height, width) != (self.side, self.side):
            raise ValueError(f"{width} by {height} pixels, expected side={self.side}")
        return image


def _rows(file: Path) -> list[list[str]]:
    """The fields of each row, from an array of strings or from lines of text."""
    content = file.read_bytes()
    try:
        if content.startswith(NUMPY_MAGIC):
            array = np.load(file, allow_pickle=False)
            return [[str(field) for field in row] for row in array.reshape(len(array), -1)]
        return [line.split() for line in content.decode().splitlines() if line.strip()]
    except (EOFError, ValueError) as error:
        raise ValueError(f"{file}: neither lines of text nor an array of strings: {error}") from error
