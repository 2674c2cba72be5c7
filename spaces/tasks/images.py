"""Pictures in the user's own folders, a folder a class, as patches or pixels.

Either the class folders lie side by side, and every class's files are dealt out to the splits; or they lie in
``train/``, ``validation/`` (or ``val/``) and ``test/``, and only what is missing of the latter two is dealt out of
``train/``. Folders whose names begin with ``_`` or a dot hold no class.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from spaces.tasks import SPLITS, Batch, Split, Task, check_whole
from spaces.tasks.sources.folders import class_files, class_of, evenly, existing, largest, split_by_hash, usable
from spaces.tasks.sources.image_patches import UNREADABLE, read_picture, square

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
FOLDERS: Mapping[Split, tuple[str, ...]] = {"validation": ("validation", "val"), "test": ("test",)}
LEAST = 3  # files of a class that is dealt out: one a split


class Images(Task):
    """Fraction of pictures whose class is told.

    A picture takes ``4 * side ** 2`` bytes of memory a channel, twice that as single pixels.

    Args:
        folder: the folder of class folders, or of ``train/`` and others with class folders in them.
        side: pixels a side; the shorter side of a picture is resized to it, and its middle cut out.
        patch: pixels a side of a patch; null: each pixel is a token, by its grey.
        channels: ``gray`` or ``rgb``.
        classes: at most; those with the most files to learn from are kept.
        train: pictures to learn from at most, evenly from every class.
        validation: pictures that the search judges by at most, likewise.
        test: pictures that the front is reported on at most, likewise.
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        side: int = 32,
        patch: int | None = 4,
        channels: str = "rgb",
        classes: int = 10,
        train: int = 2000,
        validation: int = 500,
        test: int = 1000,
    ) -> None:
        check_whole(2, classes=classes)
        self.grid = square(side, channels, patch)
        self.folder = existing(folder, "a folder of pictures for each class")
        splits = self._split_folders() if class_files(self.folder, SUFFIXES, inside="train/") else self._side_by_side()
        self.names = largest(splits["train"], classes)
        most: Mapping[Split, int] = {"train": train, "validation": validation, "test": test}
        self.files: dict[Split, list[str]] = {
            split: evenly(
                [file for name in self.names for file in splits[split].get(name, [])],
                most[split],
                split,
                len(self.names),
            )
            for split in SPLITS
        }
        for split in SPLITS:
            if not self.files[split]:
                raise ValueError(f"folder={str(self.folder)!r}: no {split} pictures of {', '.join(self.names)}")
        self.spec = self.grid.spec(len(self.names))
        judged = Counter(map(class_of, self.files["validation"]))
        self.chance = max(judged.values()) / sum(judged.values())  # the best constant guess
        self.skipped = 0

    def _side_by_side(self) -> dict[Split, dict[str, list[str]]]:
        """Files by split and class, where there are class folders alone."""
        return self._dealt(class_files(self.folder, SUFFIXES))

    def _split_folders(self) -> dict[Split, dict[str, list[str]]]:
        """The same, where the class folders lie in a folder for each split."""
        learned = class_files(self.folder, SUFFIXES, inside="train/")
        splits: dict[Split, dict[str, list[str]]] = {"train": learned}
        for split, names in FOLDERS.items():
            there = [name for name in names if (self.folder / name).is_dir()]
            if len(there) > 1:
                raise ValueError(f"folder={str(self.folder)!r}: {' and '.join(there)}; it takes one of them")
            for name in there:
                splits[split] = class_files(self.folder, SUFFIXES, inside=f"{name}/")
                unknown = ", ".join(sorted(set(splits[split]) - set(learned)))
                if unknown or not splits[split]:
                    found = f"has {unknown}, which train lacks" if unknown else "holds no class folder of pictures"
                    raise ValueError(f"{self.folder / name}: it {found}")
        missing = [split for split in SPLITS if split not in splits]
        if missing:
            parts = self._dealt(learned)
            splits |= {split: parts[split] for split in missing}
            taken = {file for split in missing for files in parts[split].values() for file in files}
            splits["train"] = {name: [file for file in files if file not in taken] for name, files in learned.items()}
        return splits

    def _dealt(self, files: Mapping[str, list[str]]) -> dict[Split, dict[str, list[str]]]:
        enough = {name: split_by_hash(found) for name, found in files.items() if len(found) >= LEAST}
        if len(enough) < 2:
            there = ", ".join(f"{name} ({len(found)})" for name, found in files.items()) or "none"
            raise ValueError(
                f"folder={str(self.folder)!r}: two class folders of {LEAST} pictures or more, ending in "
                f"{', '.join(SUFFIXES)}; there are {there}"
            )
        if few := [name for name in files if name not in enough]:
            log.warning("fewer than %d pictures, too few to deal out: %s", LEAST, ", ".join(few))
        return {split: {name: parts[split] for name, parts in enough.items()} for split in SPLITS}

    def examples(self, split: Split) -> Batch:
        """Patches ``(pictures, length, features)`` or pixels ``(pictures, length)``, and classes ``(pictures,)``.

        Unusable files are counted and left out.
        """
        kept, pictures = usable(self.folder, split, self.files[split], self._read, UNREADABLE)
        self.skipped += len(self.files[split]) - len(kept)
        labels = torch.tensor([self.names.index(class_of(file)) for file in kept])
        return Batch(self.grid.tokens(torch.stack(pictures)), None, labels)

    def _read(self, file: str) -> Tensor:
        return read_picture(Path(self.folder, file), self.grid.channels, side=self.grid.height)
