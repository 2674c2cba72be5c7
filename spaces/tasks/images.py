"""Image classification on the user's own folders, a folder per class; images become patches or pixels.

Either the folder contains the class folders, and the files of each class are split 8:1:1; or the class folders are in
``train/``, ``validation/`` (or ``val/``) and ``test/``, and a split without a folder is taken out of ``train/``.
Folders whose names begin with ``_`` or a dot are no classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import SPLITS, Split, check_whole, majority_share, split_sizes
from spaces.tasks.sources.bad_rows import iterate_usable, read_usable
from spaces.tasks.sources.folders import class_files, class_numbers, class_of, existing_folder
from spaces.tasks.sources.image_patches import IMAGE_ERRORS, read_image, square_grid
from spaces.tasks.sources.image_task import ImageTask
from spaces.tasks.sources.splits import HELD_OUT, MIN_TO_SPLIT, balanced, largest_classes, split_by_hash
from spaces.tasks.sources.stored import CHUNK, LARGE, Chunk, cache_name, stored_examples

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
FOLDERS: Mapping[Split, tuple[str, ...]] = {"validation": ("validation", "val"), "test": ("test",)}

FilesByClass = dict[str, list[str]]


class Images(ImageTask):
    """Accuracy of image classification.

    An image takes ``5 * side ** 2`` bytes of memory per channel, twice that as single pixels. If a split would take
    more than ``LARGE`` bytes, its pixels are in memory-mapped files, see :mod:`spaces.tasks.sources.stored`.

    Args:
        folder: contains the class folders, or ``train/`` and other splits with the class folders in them.
        side: height and width in pixels; the shorter side is resized to this, and the central square is cropped.
        patch: height and width of a patch in pixels; null: each pixel is a token, by its gray level.
        channels: ``gray`` or ``rgb``.
        classes: number of classes at most; those with the most training files are kept.
        train: training images at most, equally many of each class.
        validation: validation images at most, likewise.
        test: test images at most, likewise.
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        side: int = 32,
        patch: int | None = 4,
        channels: str = "rgb",
        classes: int = 10,
        train: int = 20_000,
        validation: int = 2000,
        test: int = 5000,
    ) -> None:
        check_whole(2, classes=classes)
        grid = square_grid(side, channels, patch)
        self.image_channels, self.side = grid.channels, side
        self.folder = existing_folder(folder, "a folder of images for each class")
        train_files = class_files(self.folder, SUFFIXES, inside="train/")
        splits = self._split_folders(train_files) if train_files else self._class_folders()
        sizes = {name: len(files) for name, files in splits["train"].items()}
        self.class_names = tuple(sorted(largest_classes(sizes, classes)))
        limits = split_sizes(train=train, validation=validation, test=test)
        self.files: dict[Split, list[str]] = {
            split: balanced(
                [file for name in self.class_names for file in splits[split].get(name, [])],
                limits[split],
                split,
                len(self.class_names),
                label=class_of,
            )
            for split in SPLITS
        }
        for split in SPLITS:
            if not self.files[split]:
                raise ValueError(f"folder={str(self.folder)!r}: no {split} images of {', '.join(self.class_names)}")
        self.use(grid, len(self.class_names))
        self.chance = majority_share(map(class_of, self.files["validation"]))

    def _class_folders(self) -> dict[Split, FilesByClass]:
        """Files by split and class, if there are class folders only."""
        files = class_files(self.folder, SUFFIXES)
        splits = self._split(files, HELD_OUT)
        enough = [name for name, found in files.items() if len(found) >= MIN_TO_SPLIT]
        return {split: {name: by_class[name] for name in enough} for split, by_class in splits.items()}

    def _split_folders(self, train_files: FilesByClass) -> dict[Split, FilesByClass]:
        """Files by split and class, if there is a folder for each split."""
        splits: dict[Split, FilesByClass] = {}
        for split, names in FOLDERS.items():
            there = [name for name in names if (self.folder / name).is_dir()]
            if len(there) > 1:
                raise ValueError(f"folder={str(self.folder)!r}: {' and '.join(there)}; it takes one of them")
            for name in there:
                splits[split] = class_files(self.folder, SUFFIXES, inside=f"{name}/")
                unknown = ", ".join(sorted(set(splits[split]) - set(train_files)))
                if unknown or not splits[split]:
                    found = f"has {unknown}, which train lacks" if unknown else "contains no class folder of images"
                    raise ValueError(f"{self.folder / name}: it {found}")
        missing = [split for split in HELD_OUT if split not in splits]
        splits["train"] = train_files
        return splits | self._split(train_files, missing) if missing else splits

    def _split(self, files: FilesByClass, held_out: Collection[Split]) -> dict[Split, FilesByClass]:
        """Train and the splits ``held_out`` from it, a tenth of each class; small classes are in train only."""
        few = [name for name, found in files.items() if len(found) < MIN_TO_SPLIT]
        if len(files) - len(few) < 2:
            there = ", ".join(f"{name} ({len(found)})" for name, found in files.items()) or "none"
            raise ValueError(
                f"folder={str(self.folder)!r}: it takes two class folders of {MIN_TO_SPLIT} images or more, ending in "
                f"{', '.join(SUFFIXES)}; there are {there}"
            )
        if few:
            log.warning("fewer than %d images, too few to split: %s", MIN_TO_SPLIT, ", ".join(few))
        parts = {name: split_by_hash(found, held_out=held_out) for name, found in files.items()}
        filled: list[Split] = ["train", *held_out]
        return {split: {name: part[split] for name, part in parts.items()} for split in filled}

    def read_images(self, split: Split) -> tuple[NDArray[np.uint8], Tensor]:
        """Unusable files are skipped and counted in a warning; those of stored images when they are stored."""
        files, shape = self.files[split], (self.image_channels, self.side, self.side)
        if 4 * len(files) * math.prod(shape) >= LARGE:
            name = cache_name([self.folder / file for file in files], ["images", shape, self.class_names, files])
            stored = stored_examples(name, lambda: self._chunks(split))
            return stored.tokens.reshape(-1, *shape), stored.labels
        kept, images = read_usable(self.folder, split, files, self._read, IMAGE_ERRORS)
        return torch.stack(images).numpy(), torch.from_numpy(class_numbers(kept, self.class_names))

    def _chunks(self, split: Split) -> Iterator[Chunk]:
        usable = iterate_usable(self.folder, split, self.files[split], self._read, IMAGE_ERRORS)
        while part := list(islice(usable, CHUNK)):
            pixels = torch.stack([image for _, image in part]).flatten(1).numpy()
            labels = class_numbers([file for file, _ in part], self.class_names)
            yield Chunk(pixels, np.ones(len(part), np.int64), labels)

    def _read(self, file: str) -> Tensor:
        return read_image(Path(self.folder, file), self.image_channels, side=self.side)
