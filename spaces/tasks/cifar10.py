"""CIFAR-10 from its own files, as patches in colour, or as the sequence of grey pixels that Long Range Arena has of it.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: five files of 10,000 pictures to learn from
and one to test on, each picture 32 by 32 pixels in one of ten classes, equally many of each. They come as plain bytes
(``cifar-10-batches-bin``) or as Python pickles (``cifar-10-batches-py``); of both, the bytes are read. Of the pictures
to learn from, the last tenth in the files' order is the validation split, as large as that of Tay et al., "Long Range
Arena", 2021.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import Batch, Split, Task, check_whole
from spaces.tasks.sources.folders import existing
from spaces.tasks.sources.image_patches import square

SIDE, BYTES = 32, 3 * 32 * 32  # of a picture, whose red, green and blue follow each other
LEARNED = tuple(f"data_batch_{number}" for number in range(1, 6))
FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")
GREY = torch.tensor([0.299, 0.587, 0.114])  # how bright red, green and blue look: ITU-R BT.601


class Cifar10(Task):
    """Fraction of pictures whose class is told.

    A picture takes 12 KB of memory, 4 as grey patches, 8 as grey pixels.

    Args:
        folder: the one that holds the files, or the one around it.
        patch: pixels a side of a patch; null, with ``gray``: each of 1024 pixels is a token, as in Long Range Arena.
        channels: ``gray`` or ``rgb``.
        train: pictures to learn from at most, of 45,000: the first.
        validation: pictures that the search judges by at most, of 5,000.
        test: pictures that the front is reported on at most, of 10,000.
    """

    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(
        self,
        *,
        folder: str | None = None,
        patch: int | None = 4,
        channels: str = "rgb",
        train: int = 5000,
        validation: int = 1000,
        test: int = 2000,
    ) -> None:
        self.most: Mapping[Split, int] = {"train": train, "validation": validation, "test": test}
        check_whole(1, **self.most)
        self.grid = square(SIDE, channels, patch)
        around = existing(folder, "data_batch_1.bin or data_batch_1 of CIFAR-10")
        self.files, self.read = _found(around)
        self.spec = self.grid.spec(len(self.names))
        self.chance = 1 / len(self.names)

    def examples(self, split: Split) -> Batch:
        """Patches ``(pictures, length, features)`` or pixels ``(pictures, 1024)``, and classes ``(pictures,)``."""
        files = self.files["test" if split == "test" else "train"]
        parts = [self.read(file) for file in files]
        pictures, labels = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
        if split != "test":
            tenth = len(labels) // 10
            rows = slice(len(labels) - tenth, None) if split == "validation" else slice(len(labels) - tenth)
            pictures, labels = pictures[rows], labels[rows]
        pictures = pictures[: self.most[split]].view(-1, 3, SIDE, SIDE)
        if self.grid.channels == 1:
            pictures = gray(pictures)
        return Batch(self.grid.tokens(pictures), None, labels[: self.most[split]].long())


def gray(pictures: Tensor) -> Tensor:
    """``(pictures, 3, height, width)`` uint8 to ``(pictures, 1, height, width)``."""
    return (pictures * GREY[:, None, None]).sum(1, keepdim=True).round().to(torch.uint8)


Read = Callable[[Path], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def _found(around: Path) -> tuple[dict[Split, list[Path]], Read]:
    """The files to learn from and to test on, and how they are read: as bytes if they are there as such."""
    for ending, read in ((".bin", read_bytes), ("", read_pickle)):
        for name in FOLDERS:
            folder = around / name
            if (folder / f"{LEARNED[0]}{ending}").is_file():
                files = [folder / f"{part}{ending}" for part in (*LEARNED, "test_batch")]
                if missing := [file.name for file in files if not file.is_file()]:
                    raise ValueError(f"folder={str(folder)!r}: {', '.join(missing)} missing; it takes all six files")
                return {"train": files[:-1], "test": files[-1:]}, read
    raise ValueError(
        f"folder={str(around)!r}: neither data_batch_1.bin nor data_batch_1, in it or in {FOLDERS[1]} there"
    )


def read_bytes(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures ``(n, 3072)`` and labels ``(n,)`` of a ``.bin``: a byte of label, then the picture's."""
    content = np.fromfile(file, dtype=np.uint8)
    if not len(content) or len(content) % (1 + BYTES):
        raise ValueError(
            f"{file}: {len(content)} bytes; a picture has {1 + BYTES}, so it is truncated or something else"
        )
    rows = content.reshape(-1, 1 + BYTES)
    return rows[:, 1:], _labels(file, rows[:, 0])


def read_pickle(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same of a Python pickle, of which nothing but arrays, texts and numbers is taken."""
    try:
        with file.open("rb") as source:
            content = _ArraysOnly(source, encoding="latin1").load()
    # A damaged pickle fails in any way that its instructions can.
    except Exception as error:
        raise ValueError(f"{file}: no sound pickle of CIFAR-10: {str(error) or 'it ends too early'}") from error
    if not isinstance(content, dict) or not {"data", "labels"} <= content.keys():
        raise ValueError(f"{file}: no pickle of CIFAR-10, which has data and labels")
    data, labels = content["data"], content["labels"]
    sound = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (len(labels), BYTES)
    if not sound or not all(type(label) is int for label in labels):
        raise ValueError(f"{file}: data must be uint8 (n, {BYTES}), and labels n whole numbers")
    return data, _labels(file, np.array(labels))


def _labels(file: Path, labels: NDArray[Any]) -> NDArray[np.uint8]:
    wrong = (labels < 0) | (labels >= len(Cifar10.names))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{file}: picture {row} has the label {labels[row]}; it must be 0..{len(Cifar10.names) - 1}")
    return labels.astype(np.uint8)


class _ArraysOnly(pickle.Unpickler):
    """Pickles call whatever function they name, so that one from a stranger can do anything; this one knows three.

    They are those by which NumPy of any version has its arrays rebuilt.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused: a pickle can run code")
