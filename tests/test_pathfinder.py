"""Pathfinder: labels, splits, and handling of unusable files and folders."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import pixels, write_pathfinder

from spaces.tasks import SPLITS
from spaces.tasks.pathfinder import Pathfinder


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("patch", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_images_have_their_labels(tmp_path: Path, arrays: bool, patch: int | None) -> None:
    task = Pathfinder(folder=str(write_pathfinder(tmp_path, arrays=arrays)), side=6, patch=patch)
    assert sum(map(len, task.files.values())) == len({file for split in SPLITS for file in task.files[split]}) > 50
    for split in SPLITS:
        inputs, _, labels, *_ = task.examples(split)
        for file, row, label in zip(task.files[split], inputs, labels, strict=True):
            _, batch, name = file.split("/")
            number = int(name.removeprefix("sample_").removesuffix(".png"))
            assert label == number % 2
            image = torch.from_numpy(pixels(1000 * int(batch) + number, 6, 6, 1))
            assert torch.equal(row, task.grid.tokens(image.permute(2, 0, 1)[None])[0])


def test_limits_keep_equally_many_images_of_both_classes(tmp_path: Path) -> None:
    task = Pathfinder(folder=str(write_pathfinder(tmp_path, batches=5)), side=6, train=11, validation=4, test=4)
    assert [torch.bincount(task.examples(split).labels).tolist() for split in SPLITS] == [[5, 5], [2, 2], [2, 2]]
    assert (task.chance, task.spec.length, task.spec.vocabulary) == (0.5, 36, 256)


def test_splits_depend_on_file_names_only_and_difficulties_are_separate(tmp_path: Path) -> None:
    task = Pathfinder(folder=str(write_pathfinder(tmp_path / "here")), side=6)
    (tmp_path / "here").rename(tmp_path / "there")
    again = Pathfinder(folder=str(tmp_path / "there"), side=6, difficulty="curv_baseline")
    assert again.files == task.files
    assert again.folder != task.folder


def test_the_empty_image_of_the_published_folder_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = Pathfinder(folder=str(write_pathfinder(tmp_path)), side=6)
    bad = task.files["train"][5]
    (task.folder / bad).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        inputs, _, labels, *_ = task.examples("train")
    assert len(inputs) == len(labels) == len(task.files["train"]) - 1
    assert f"train files are unusable, such as {bad}: cannot identify image file" in caplog.text


def test_images_of_another_size_are_unusable(tmp_path: Path) -> None:
    task = Pathfinder(folder=str(write_pathfinder(tmp_path)), side=8)
    with pytest.raises(ValueError, match="6 by 6 pixels, expected side=8"):
        task.examples("train")


def rewrite(content: bytes | str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (rewrite("imgs/0 a.png 0 1\nimgs/0 b.png 0\n"), {}, r"0.npy, row 2: \['imgs/0', 'b.png', '0'\]; it takes a"),
        (rewrite("imgs/0 a.png 0 1.8\n"), {}, "0.npy, row 1: .*; it takes a folder, a file, a number, and 0 or 1"),
        (rewrite(b"\xff\xfe\x00"), {}, "0.npy: neither lines of text nor an array of strings: "),
        (rewrite(b"\x93NUMPY\x01\x00"), {}, "0.npy: neither lines of text nor an array of strings: "),
        (lambda path: np.save(path, np.array([[None]])), {}, "nor an array of strings: Object arrays cannot be loaded"),
        (
            lambda path: None,
            {"difficulty": "hard"},
            r"difficulty='hard': no such folder .* are curv_baseline, ",
        ),
        (lambda path: None, {"folder": None}, "folder=None: name a folder that contains curv_contour_length_14 and"),
        (lambda path: None, {"patch": 7}, "patch=7: it must fit into the image, 6 by 6"),
        (lambda path: None, {"train": 1}, "train=1: it must be a whole number from 2"),
    ],
)
def test_unusable_metadata_and_invalid_settings_are_refused_at_construction(
    tmp_path: Path, damage: Callable[[Path], object], settings: dict[str, Any], message: str
) -> None:
    damage(write_pathfinder(tmp_path, batches=1) / "curv_contour_length_14" / "metadata" / "0.npy")
    with pytest.raises(ValueError, match=message):
        Pathfinder(**{"folder": str(tmp_path), "side": 6} | settings)


def test_a_folder_without_metadata_is_refused(tmp_path: Path) -> None:
    write_pathfinder(tmp_path, batches=1)
    (tmp_path / "curv_contour_length_14" / "metadata" / "0.npy").unlink()
    with pytest.raises(ValueError, match=r"no metadata/\*\.npy with any rows"):
        Pathfinder(folder=str(tmp_path), side=6)
