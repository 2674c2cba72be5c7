"""CIFAR-10 in both file formats: images, splits, and handling of invalid files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import pixels, python2_pickle, write_cifar10
from PIL import Image

from spaces.tasks import SPLITS
from spaces.tasks.cifar10 import Cifar10, read_pickle, to_gray

ROWS = {"train": range(45), "validation": range(45, 50), "test": range(50, 60)}  # by the seed of their pixels


@pytest.mark.parametrize("pickled", [False, True])
def test_images_are_in_the_order_of_the_files(tmp_path: Path, pickled: bool) -> None:
    task = Cifar10(folder=str(write_cifar10(tmp_path, pickled=pickled)))
    for split in SPLITS:
        inputs, _, labels, *_ = task.examples(split)
        assert labels.tolist() == [row % 10 for row in ROWS[split]]
        images = np.stack([pixels(row, 3, 32, 32) for row in ROWS[split]])
        assert torch.equal(inputs, task.grid.tokens(torch.from_numpy(images)))
    assert (task.spec.length, task.spec.features, task.spec.classes) == (64, 48, 10)


def test_gray_pixels_equal_those_of_pillow(tmp_path: Path) -> None:
    task = Cifar10(folder=str(write_cifar10(tmp_path)), patch=None, channels="gray", test=3)
    inputs = task.examples("test").inputs
    assert (inputs.shape, task.spec.vocabulary) == ((3, 1024), 256)
    image = Image.fromarray(pixels(51, 3, 32, 32).transpose(1, 2, 0)).convert("L")
    assert (inputs[1].view(32, 32) - torch.from_numpy(np.array(image)).long()).abs().max() <= 1
    assert to_gray(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique().tolist() == [255]


def test_binary_files_are_preferred_and_the_parent_folder_is_accepted(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py", pickled=True)
    assert Cifar10(folder=str(tmp_path)).files["test"] == [tmp_path / "cifar-10-batches-py" / "test_batch"]
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    assert Cifar10(folder=str(tmp_path)).files["test"] == [tmp_path / "cifar-10-batches-bin" / "test_batch.bin"]


class Trap:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "sprung"),)


def test_reading_a_pickle_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "trap").write_bytes(pickle.dumps({"data": Trap(tmp_path), "labels": []}))
    with pytest.raises(
        ValueError, match=r"trap: .* calls (posix|nt)\.mkdir, which is not allowed: a pickle can run code"
    ):
        read_pickle(tmp_path / "trap")
    assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "trap").read_bytes())  # the standard unpickler runs it
    assert (tmp_path / "sprung").exists()


def test_a_pickle_of_current_numpy_is_read(tmp_path: Path) -> None:
    data = pixels(0, 3, 32, 32).reshape(1, -1)
    (tmp_path / "a").write_bytes(pickle.dumps({"data": data, "labels": [7]}))
    images, labels = read_pickle(tmp_path / "a")
    assert (images.tolist(), labels.tolist()) == (data.tolist(), [7])


IMAGE = pixels(0, 3, 32, 32).reshape(1, -1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no valid pickle of CIFAR-10: Ran out of input"),
        (python2_pickle(IMAGE, [1])[:-50], "no valid pickle of CIFAR-10: "),
        (b"once upon a time", "no valid pickle of CIFAR-10: "),
        (pickle.dumps({"data": 1}), "no pickle of CIFAR-10; it lacks data and labels"),
        (pickle.dumps([1]), "no pickle of CIFAR-10; it lacks data and labels"),
        (python2_pickle(IMAGE, [1, 2]), r"data must be uint8 \(n, 3072\), and labels n integers"),
        (python2_pickle(IMAGE[:, 1:], [1]), r"data must be uint8 \(n, 3072\), and labels n integers"),
        (python2_pickle(IMAGE, [10]), r"image 0 has the label 10; it must be 0\.\.9"),
        (python2_pickle(IMAGE, [-1]), r"image 0 has the label -1; it must be 0\.\.9"),
    ],
)
def test_an_invalid_pickle_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    write_cifar10(tmp_path, pickled=True)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=f"test_batch: {message}"):
        Cifar10(folder=str(tmp_path)).examples("test")


def relabelled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2 * 3073] = 99
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "data_batch_3.bin: 30729 bytes, no multiple of 3073"),
        (lambda path: path.write_bytes(b""), "data_batch_3.bin: 0 bytes"),
        (lambda path: path.unlink(), "data_batch_3.bin missing; all six files are needed"),
        (relabelled, r"data_batch_3.bin: image 2 has the label 99; it must be 0\.\.9"),
    ],
)
def test_damaged_binary_files_are_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(write_cifar10(tmp_path) / "data_batch_3.bin")
    with pytest.raises(ValueError, match=message):
        Cifar10(folder=str(tmp_path)).examples("train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither data_batch_1.bin nor data_batch_1 in it, cifar-10-batches-bin or cifar-10-batches-py"),
        ({"folder": None}, "folder=None: name a folder that contains data_batch_1.bin or data_batch_1 of CIFAR-10"),
        ({"train": 0}, "train=0: it must be a whole number from 1"),
        ({"patch": 33}, "patch=33: it must fit into the image, 32 by 32"),
        ({"patch": None}, "patch=None: single pixels are tokens by their gray level, but there are 3 channels"),
    ],
)
def test_invalid_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cifar10(**{"folder": str(tmp_path)} | settings)
