"""Arrays: accepted inputs and labels, splits, and handling of invalid arrays and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import pixels, write_arrays

from spaces.tasks import IGNORE_INDEX, SPLITS
from spaces.tasks.arrays import Arrays
from spaces.tasks.sources.image_patches import Grid

LABELS = np.arange(20) % 3


def written(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "a.npz", **arrays)
    return str(folder / "a.npz")


def all_splits(task: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of all splits."""
    batches = [task.examples(split) for split in SPLITS]
    return torch.cat([batch.inputs for batch in batches]), torch.cat([batch.labels for batch in batches])


@pytest.mark.parametrize("kind", ["int64", "uint8", "int32", "uint16", ">i4"])
def test_integers_are_token_ids(tmp_path: Path, kind: str) -> None:
    ids = np.arange(100).reshape(20, 5).astype(kind)
    task = Arrays(file=written(tmp_path, inputs=ids, labels=LABELS))
    assert (task.spec.length, task.spec.vocabulary, task.spec.classes) == (5, 100, 3)
    inputs, labels = all_splits(task)
    assert sorted(inputs.tolist()) == ids.tolist()
    assert labels.tolist() == [LABELS[row[0] // 5] for row in inputs.tolist()]
    assert [len(task.examples(split).inputs) for split in SPLITS] == [16, 2, 2]
    assert {row[0] for row in task.examples("train").inputs.tolist()} != set(range(0, 80, 5)), (
        "not in the order of the file"
    )


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f8"])
def test_floats_are_frames(tmp_path: Path, kind: str) -> None:
    frames = (np.arange(120) / 8).reshape(20, 3, 2).astype(kind)
    task = Arrays(file=written(tmp_path, inputs=frames, labels=LABELS))
    assert (task.spec.length, task.spec.features, task.spec.vocabulary) == (3, 2, None)
    assert sorted(all_splits(task)[0].tolist()) == frames.tolist()


@pytest.mark.parametrize(("shape", "patch"), [((4, 6), 2), ((4, 6, 1), 2), ((4, 6, 3), 2), ((4, 6), None)])
def test_images_are_cut_into_patches(tmp_path: Path, shape: tuple[int, ...], patch: int | None) -> None:
    images = np.random.default_rng(0).integers(256, size=(20, *shape), dtype=np.uint8)
    task = Arrays(file=written(tmp_path, inputs=images, labels=np.arange(20)), patch=patch)
    grid = Grid(height=4, width=6, channels=(*shape, 1)[2], patch=patch)
    for row, label in zip(*all_splits(task), strict=True):
        image = images[label].reshape(4, 6, -1).transpose(2, 0, 1)
        torch.testing.assert_close(row, grid.tokens(torch.from_numpy(image)[None])[0])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS * 7 - 3, ("-3", "4", "11")),
        (LABELS == 1, ("0", "1")),
        (np.array(["yes", "no", "go"])[LABELS], ("go", "no", "yes")),
        (LABELS.astype("uint8") + 200, ("200", "201", "202")),
    ],
)
def test_classes_are_sorted_labels(tmp_path: Path, labels: np.ndarray, names: tuple[str, ...]) -> None:
    task = Arrays(file=written(tmp_path, inputs=np.arange(40).reshape(20, 2), labels=labels))
    assert task.class_names == names
    values = labels.astype(int) if labels.dtype == bool else labels
    for (first, _), label in zip(*all_splits(task), strict=True):
        assert names[label] == str(values[first // 2])


def test_labels_per_token_and_padding(tmp_path: Path) -> None:
    ids = np.arange(60).reshape(20, 3)
    padding = np.zeros((20, 3), int)
    padding[4, 1:] = 1
    labels = ids % 4 + 1
    labels[5, 0] = IGNORE_INDEX
    labels[4, 2] = 77  # at padding, so no class
    ids[4, 1:] = -1
    task = Arrays(file=written(tmp_path, inputs=ids, labels=labels, lengths=padding), padding="lengths", causal=True)
    assert (task.spec.per_token, task.spec.causal, task.spec.classes, task.class_names) == (
        True,
        True,
        4,
        tuple("1234"),
    )
    expected, classes = ids.copy(), ids % 4
    expected[4, 1:], classes[4, 1:], classes[5, 0] = 0, IGNORE_INDEX, IGNORE_INDEX
    inputs, found_labels = all_splits(task)
    order = inputs[:, 0].argsort()
    assert inputs[order].tolist() == expected.tolist()
    assert found_labels[order].tolist() == classes.tolist()
    paddings = [task.examples(split).padding for split in SPLITS]
    assert sum(int(padding.sum()) for padding in paddings if padding is not None) == 2


def test_values_at_padding_are_ignored(tmp_path: Path) -> None:
    frames = np.ones((20, 3, 2))
    frames[:, 2] = np.nan
    padding = np.zeros((20, 3), bool)
    padding[:, 2] = True
    task = Arrays(file=written(tmp_path, inputs=frames, labels=LABELS, padding=padding), padding="padding")
    assert all_splits(task)[0][:, 2].unique().tolist() == [0]


def test_splits_of_the_file_are_kept(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for at, (split, rows) in enumerate(zip(SPLITS, (9, 4, 3), strict=True)):
        arrays[f"{split}_x"], arrays[f"{split}_y"] = np.full((rows, 2), at), np.arange(rows) % 2
    task = Arrays(file=written(tmp_path, **arrays), inputs="x", labels="y")
    for at, (split, rows) in enumerate(zip(SPLITS, (9, 4, 3), strict=True)):
        inputs, _, labels, *_ = task.examples(split)
        assert inputs.tolist() == [[at, at]] * rows
        assert labels.tolist() == [row % 2 for row in range(rows)]
    few = Arrays(file=str(task.file), inputs="x", labels="y", train=6)
    assert len(few.examples("train").inputs) == 6
    assert len(set(few.examples("train").labels.tolist())) == 2, "not the first rows, which may be of one class"


def test_another_seed_gives_another_split(tmp_path: Path) -> None:
    one, same, other = (Arrays(file=str(write_arrays(tmp_path / "a.npz")), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.examples("test").inputs, same.examples("test").inputs)
    assert not torch.equal(one.examples("test").inputs, other.examples("test").inputs)


def test_chance_is_the_share_of_the_majority_class_in_validation(tmp_path: Path) -> None:
    arrays = {f"{split}_inputs": np.zeros((5, 2), int) for split in SPLITS}
    arrays |= {f"{split}_labels": np.array([0, 1, 1, 1, 2]) for split in SPLITS}
    assert Arrays(file=written(tmp_path, **arrays)).chance == 3 / 5


IDS = np.arange(40).reshape(20, 2)
FRAMES = np.ones((20, 3, 2), np.float32)
IMAGES = np.stack([pixels(seed, 4, 4) for seed in range(20)])


def changed(array: np.ndarray, row: int, value: float) -> np.ndarray:
    array = array.copy()
    array.reshape(len(array), -1)[row, -1] = value
    return array


def per_split(**sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    inputs = {f"{split}_inputs": np.zeros(shape, int) for split, shape in sizes.items()}
    return inputs | {f"{split}_labels": np.arange(shape[0]) for split, shape in sizes.items()}


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"x": IDS, "y": LABELS}, {}, "a.npz': no array 'inputs'; there are 'x', 'y'"),
        ({"inputs": IDS}, {}, "no array 'labels'; there are 'inputs'"),
        (per_split(train=(4, 2), test=(3, 2)), {}, "no array 'validation_inputs'; there are 'train_inputs', 'test_"),
        (per_split(train=(4, 2), validation=(4, 3), test=(4, 2)), {}, r"splits differ: int64 .*\(4, 2\), .*\(4, 3\)"),
        (
            {"inputs": np.array([None, "a"] * 10), "labels": LABELS},
            {},
            "array 'inputs' can't be read: Object arrays",
        ),
        ({"inputs": IDS * 1.0, "labels": LABELS}, {}, r"inputs: float64 of shape \(20, 2\); it takes integers"),
        ({"inputs": IDS[:, :0], "labels": LABELS}, {}, r"inputs: int64 of shape \(20, 0\)"),
        ({"inputs": IDS > 3, "labels": LABELS}, {}, r"inputs: bool of shape \(20, 2\)"),
        ({"inputs": IMAGES.astype(int), "labels": LABELS}, {}, r"inputs: int64 of shape \(20, 4, 4, 3\)"),
        ({"inputs": changed(IDS, 7, -1), "labels": LABELS}, {}, r"inputs: row 7: ids must be 0\.\.1048575"),
        ({"inputs": changed(IDS, 7, 1 << 20), "labels": LABELS}, {}, r"inputs: row 7: ids must be 0\.\.1048575"),
        ({"inputs": changed(FRAMES, 9, np.nan), "labels": LABELS}, {}, "inputs: row 9: a number is NaN, infinite"),
        ({"inputs": -np.inf * FRAMES, "labels": LABELS}, {}, "inputs: row 0 and 19 others: a number is NaN, infinite"),
        ({"inputs": FRAMES.astype(float) * 1e300, "labels": LABELS}, {}, "a number is NaN, infinite or too large"),
        ({"inputs": IDS, "labels": LABELS * 0.5}, {}, r"labels: float64 of shape \(20,\); it takes integers, or"),
        (
            {"inputs": IDS, "labels": LABELS[1:]},
            {},
            r"labels: shape \(19,\); .* takes \(20,\) or \(20, 2\)",
        ),
        ({"inputs": IMAGES, "labels": IMAGES[..., 0]}, {}, r"labels: shape \(20, 4, 4\); .* it takes \(20,\)$"),
        (
            {"inputs": IDS, "labels": changed(LABELS, 3, IGNORE_INDEX)},
            {},
            "labels: row 3: no labels; -100 marks",
        ),
        (
            {"inputs": IDS, "labels": np.where(IDS < 2, IGNORE_INDEX, 1)},
            {},
            "labels: row 0: no labels; -100 marks",
        ),
        ({"inputs": IMAGES, "labels": LABELS}, {"patch": 5}, "patch=5: it must fit into the image, 4 by 4"),
        (
            {"inputs": IMAGES, "labels": LABELS},
            {},
            "patch=None: single pixels are tokens by their gray level, but there are 3 channels",
        ),
        ({"inputs": IMAGES[..., [0] * 5], "labels": LABELS}, {}, r"5 channels, the last axis; it takes 1\.\.4"),
        (
            {"inputs": FRAMES, "labels": LABELS},
            {"patch": 2},
            "patch=2: it must be null, as inputs are no images, which",
        ),
        ({"inputs": IDS, "labels": LABELS}, {"causal": True}, "causal=True: it takes a label per token"),
        ({"inputs": IDS, "labels": LABELS}, {"padding": "mask"}, "no array 'mask'"),
        (
            {"inputs": IDS, "labels": LABELS, "p": LABELS},
            {"padding": "p"},
            r"p: int64 of shape \(20,\).*0 or 1 per",
        ),
        ({"inputs": IDS, "labels": LABELS, "p": IDS * 0.0}, {"padding": "p"}, "p: float64"),
        ({"inputs": IDS, "labels": LABELS, "p": IDS == 0}, {"padding": "p"}, "p: row 0: padding must be at the end"),
        ({"inputs": IDS, "labels": LABELS, "p": IDS >= 38}, {"padding": "p"}, "p: row 19: padding must be at the"),
    ],
)
def test_invalid_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays(file=written(tmp_path, **arrays), **settings)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("a,b"), "not an .npz file, as written by numpy.savez"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not an .npz file, as written by numpy.savez"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"\7\0\0\0", b"\6\0\0\0")),
            "'inputs' can't be read: Bad CRC-32",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    file = written(tmp_path, inputs=IDS, labels=LABELS)
    damage(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=message):
        Arrays(file=file)
