"""CIFAR-10 from its published files, as color patches or as the sequence of gray pixels of Long Range Arena.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: five files of 10,000 training images and one
of test images, of 32 by 32 pixels, in ten balanced classes. The files are binary (``cifar-10-batches-bin``) or Python
pickles (``cifar-10-batches-py``); if both are present, the binary ones are read. The last tenth of the training images
is the validation split, as many as in Tay et al., "Long Range Arena", 2021.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import Split, split_sizes
from spaces.tasks.sources.folders import existing_folder
from spaces.tasks.sources.image_patches import square_grid
from spaces.tasks.sources.image_task import ImageTask

SIDE, BYTES = 32, 3 * 32 * 32  # of an image: the red, then the green, then the blue channel
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")
LUMA = torch.tensor([0.299, 0.587, 0.114])  # weights of red, green and blue: ITU-R BT.601


class Cifar10(ImageTask):
    """Accuracy of image classification.

    An image takes 15 KB of memory, 5 KB as gray patches, 9 KB as gray pixels; many take a quarter.

    Args:
        folder: contains the files, or the folder of the files.
        patch: height and width of a patch in pixels; null, with ``gray``: each of 1024 pixels is a token, as in Long
            Range Arena.
        channels: ``gray`` or ``rgb``.
        train: training images at most, the first of 45,000.
        validation: validation images at most, of 5,000.
        test: test images at most, of 10,000.
    """

    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

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
        self.limits = split_sizes(train=train, validation=validation, test=test)
        grid = square_grid(SIDE, channels, patch)
        self.gray = grid.channels == 1
        parent = existing_folder(folder, "data_batch_1.bin or data_batch_1 of CIFAR-10")
        self.files, self.read = _find_files(parent)
        self.use(grid, len(self.class_names))
        self.chance = 1 / len(self.class_names)

    def read_images(self, split: Split) -> tuple[NDArray[np.uint8], Tensor]:
        """The first images of the files of a split."""
        files = self.files["test" if split == "test" else "train"]
        parts = [self.read(file) for file in files]
        images, labels = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
        if split != "test":
            tenth = len(labels) // 10
            rows = slice(len(labels) - tenth, None) if split == "validation" else slice(len(labels) - tenth)
            images, labels = images[rows], labels[rows]
        images = images[: self.limits[split]].view(-1, 3, SIDE, SIDE)
        return (to_gray(images) if self.gray else images).numpy(), labels[: self.limits[split]].long()


def to_gray(images: Tensor) -> Tensor:
    """``(images, 3, height, width)`` uint8 to ``(images, 1, height, width)``."""
    return (images * LUMA[:, None, None]).sum(1, keepdim=True).round().to(torch.uint8)


Read = Callable[[Path], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def _find_files(parent: Path) -> tuple[dict[Split, list[Path]], Read]:
    """The training and test files, and the function that reads them."""
    for ending, read in ((".bin", read_bytes), ("", read_pickle)):
        for name in FOLDERS:
            folder = parent / name
            if (folder / f"{TRAIN_FILES[0]}{ending}").is_file():
                files = [folder / f"{part}{ending}" for part in (*TRAIN_FILES, "test_batch")]
                if missing := [file.name for file in files if not file.is_file()]:
                    raise ValueError(f"folder={str(folder)!r}: {', '.join(missing)} missing; all six files are needed")
                return {"train": files[:-1], "test": files[-1:]}, read
    raise ValueError(
        f"folder={str(parent)!r}: neither data_batch_1.bin nor data_batch_1 in it, {FOLDERS[1]} or {FOLDERS[2]}"
    )


def read_bytes(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images ``(n, 3072)`` and labels ``(n,)`` of a binary file: rows of one label byte and the bytes of the image."""
    content = np.fromfile(file, dtype=np.uint8)
    if not len(content) or len(content) % (1 + BYTES):
        raise ValueError(
            f"{file}: {len(content)} bytes, no multiple of {1 + BYTES}; the file is truncated or no CIFAR-10 file"
        )
    rows = content.reshape(-1, 1 + BYTES)
    return rows[:, 1:], _labels(file, rows[:, 0])


def read_pickle(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same from a Python pickle, of which only arrays, strings and numbers are accepted."""
    try:
        with file.open("rb") as source:
            content = _ArraysOnly(source, encoding="latin1").load()
    # A damaged pickle can raise anything.
    except Exception as error:
        raise ValueError(f"{file}: no valid pickle of CIFAR-10: {str(error) or 'it ends too early'}") from error
    if not isinstance(content, dict) or not {"data", "labels"} <= content.keys():
        raise ValueError(f"{file}: no pickle of CIFAR-10; it lacks data and labels")
    data, labels = content["data"], content["labels"]
    valid = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (len(labels), BYTES)
    if not valid or not all(type(label) is int for label in labels):
        raise ValueError(f"{file}: data must be uint8 (n, {BYTES}), and labels n integers")
    return data, _labels(file, np.array(labels))


def _labels(file: Path, labels: NDArray[Any]) -> NDArray[np.uint8]:
    wrong = (labels < 0) | (labels >= len(Cifar10.class_names))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{file}: image {row} has the label {labels[row]}; it must be 0..{len(Cifar10.class_names) - 1}"
        )
    return labels.astype(np.uint8)


class _ArraysOnly(pickle.Unpickler):
    """Allows only the three functions by which NumPy arrays of any version are unpickled.

    A pickle can call any function it names, so an untrusted one could run arbitrary code.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not allowed: a pickle can run code")
