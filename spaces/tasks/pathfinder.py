"""Pathfinder of Long Range Arena: are the two dots joined by one path of dashes, among others that lead astray?

Linsley et al., "Learning long-range spatial dependencies with horizontal gated recurrent units", 2018; as a sequence of
grey pixels, Tay et al., "Long Range Arena", 2021. In a folder such as ``pathfinder32`` each difficulty is a folder that
has a ``metadata/N.npy`` for each batch: a row a picture, which is the picture's folder (``imgs/N``), its file, its
number, 1 where the dots are joined or 0, and how it was drawn. Rows are lines of text there, whatever the name says;
the generator's own are arrays of texts. The published folder has an empty picture, which is left out. Its splits were
never published: files are dealt out by their names' hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spaces.tasks import SPLITS, Batch, Split, Task
from spaces.tasks.sources.folders import evenly, existing, split_by_hash, usable
from spaces.tasks.sources.image_patches import UNREADABLE, read_picture, square

NUMPY = b"\x93NUMPY"  # how an array's file begins
ANSWERS = {"0": 0, "1": 1}


class Pathfinder(Task):
    """Fraction of pictures of which it is told whether the dots are joined.

    A picture takes ``8 * side ** 2`` bytes of memory as pixels, half that as patches.

    Args:
        folder: the folder of a size, such as ``pathfinder32``, that holds the difficulties.
        difficulty: ``curv_baseline``, ``curv_contour_length_9`` or ``curv_contour_length_14``, the hardest, by which
            models are usually compared.
        side: pixels a side, as the folder's pictures have them.
        patch: pixels a side of a patch; null: each pixel is a token, by its grey.
        train: pictures to learn from at most, half of them joined; of the 200,000, 8 of 10 by their names' hashes.
        validation: pictures that the search judges by at most, of 1 of 10.
        test: pictures that the front is reported on at most, likewise.
    """

    names = ("apart", "joined")

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
        self.grid = square(side, "gray", patch)
        around = existing(folder, "curv_contour_length_14 and others, such as pathfinder32")
        self.folder = around / difficulty
        if not self.folder.is_dir():
            there = ", ".join(sorted(path.parent.name for path in around.glob("*/metadata"))) or "none"
            raise ValueError(f"difficulty={difficulty!r}: no such folder in {str(around)!r}; there are {there}")
        self.joined = self._metadata()
        most: Mapping[Split, int] = {"train": train, "validation": validation, "test": test}
        splits = split_by_hash(self.joined)
        self.files: dict[Split, list[str]] = {
            split: evenly(splits[split], most[split], split, len(self.names), label=self.joined.__getitem__)
            for split in SPLITS
        }
        self.spec = self.grid.spec(len(self.names))
        judged = Counter(self.joined[file] for file in self.files["validation"])
        self.chance = max(judged.values()) / judged.total()  # the best constant guess
        self.skipped = 0

    def _metadata(self) -> dict[str, int]:
        """Whether the dots are joined, by picture."""
        joined: dict[str, int] = {}
        for file in sorted(self.folder.glob("metadata/*.npy")):
            for number, row in enumerate(_rows(file), 1):
                if len(row) < 4 or row[3] not in ANSWERS:
                    raise ValueError(f"{file}, row {number}: {row}; it takes a folder, a file, a number, and 0 or 1")
                joined[f"{row[0]}/{row[1]}"] = ANSWERS[row[3]]
        if not joined:
            raise ValueError(f"{self.folder}: no metadata/*.npy with rows in it")
        return joined

    def examples(self, split: Split) -> Batch:
        """Pixels ``(pictures, side ** 2)`` or patches ``(pictures, length, features)``, and answers ``(pictures,)``.

        Unusable files are counted and left out.
        """
        kept, pictures = usable(self.folder, split, self.files[split], self._read, UNREADABLE)
        self.skipped += len(self.files[split]) - len(kept)
        return Batch(self.grid.tokens(torch.stack(pictures)), None, torch.tensor([self.joined[file] for file in kept]))

    def _read(self, file: str) -> Tensor:
        picture = read_picture(self.folder / file, 1)
        _, height, width = picture.shape
        if (height, width) != (self.grid.height, self.grid.width):
            raise ValueError(f"{width} by {height} pixels, expected are side={self.grid.height}")
        return picture


def _rows(file: Path) -> list[list[str]]:
    """The words of each row, of an array of texts or of lines."""
    with file.open("rb") as source:
        content = source.read()
    try:
        if content.startswith(NUMPY):
            array = np.load(file, allow_pickle=False)
            return [[str(word) for word in row] for row in array.reshape(len(array), -1)]
        return [line.split() for line in content.decode().splitlines() if line.strip()]
    except (EOFError, ValueError) as error:
        raise ValueError(f"{file}: neither lines of text nor an array of texts: {error}") from error
