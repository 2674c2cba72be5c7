"""Image folders: tokens, image files, splits, and handling of unusable files and folders."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from image_files import pixels, write_images
from PIL import Image

from spaces.tasks import SPLITS
from spaces.tasks.images import Images
from spaces.tasks.sources.image_patches import IMAGE_ERRORS, Grid, read_image

# Tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "channels", "patch"),
    [(6, 4, 3, 2), (4, 6, 1, 2), (3, 3, 3, 3), (5, 2, 2, 1), (5, 4, 2, 3), (3, 7, 1, 2)],
)
def test_patches_contain_the_pixels_in_row_major_order_channel_by_channel(
    height: int, width: int, channels: int, patch: int
) -> None:
    grid = Grid(height=height, width=width, channels=channels, patch=patch)
    image = torch.randint(256, (2, channels, height, width), dtype=torch.uint8)
    slow = [
        [
            [
                image[row, channel, min(top + down, height - 1), min(left + right, width - 1)].item() / 255 * 2 - 1
                for channel in range(channels)
                for down in range(patch)
                for right in range(patch)
            ]
            for top in range(0, height, patch)
            for left in range(0, width, patch)
        ]
        for row in range(2)
    ]
    torch.testing.assert_close(grid.tokens(image), torch.tensor(slow))
    spec = grid.spec(7)
    assert grid.tokens(image).shape == (2, spec.length, spec.features)
    assert spec.classes == 7


def test_token_ids_of_single_pixels_are_gray_levels() -> None:
    grid = Grid(height=2, width=3, channels=1, patch=None)
    image = torch.tensor([[[[0, 1, 2], [253, 254, 255]]]], dtype=torch.uint8)
    assert grid.tokens(image).tolist() == [[0, 1, 2, 253, 254, 255]]
    assert (grid.spec(2).length, grid.spec(2).vocabulary, grid.spec(2).features) == (6, 256, None)


# Files ------------------------------------------------------------------------------------------------------------


def saved(path: Path, array: np.ndarray, mode: str | None = None, **settings: object) -> Path:
    image = Image.fromarray(array.squeeze())
    (image.convert(mode) if mode else image).save(path, **settings)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif"])
def test_pixels_are_read_unchanged(tmp_path: Path, suffix: str) -> None:
    array = pixels(1, 5, 7)
    image = read_image(saved(tmp_path / f"a{suffix}", array), 3)
    assert (image.dtype, image.tolist()) == (torch.uint8, array.transpose(2, 0, 1).tolist())
    gray = array[:, :, :1]
    assert read_image(saved(tmp_path / f"b{suffix}", gray), 1).tolist() == [gray[:, :, 0].tolist()]
    assert read_image(tmp_path / f"b{suffix}", 3).tolist() == [gray[:, :, 0].tolist()] * 3


def test_colors_are_converted_to_gray_by_luma(tmp_path: Path) -> None:
    array = pixels(2, 4, 4)
    bright = array.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(read_image(saved(tmp_path / "a.png", array), 1)[0].numpy() - bright).max() <= 1


def test_16_bit_images_keep_the_upper_8_bits(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(1 << 16, size=(4, 4), dtype=np.uint16)
    assert read_image(saved(tmp_path / "a.png", deep), 1)[0].tolist() == (deep >> 8).tolist()


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    array = pixels(3, 2, 2, 4)
    array[:, :, 3] = [[0, 255], [0, 255]]
    image = read_image(saved(tmp_path / "a.png", array), 3)
    assert image[:, :, 0].unique().tolist() == [255]
    assert image[:, :, 1].tolist() == array[:, 1, :3].T.tolist()


def test_images_are_rotated_by_their_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    array = pixels(4, 3, 5)
    image = read_image(saved(tmp_path / "a.png", array, exif=exif), 3)
    assert image.tolist() == np.rot90(array, -1).transpose(2, 0, 1).tolist()


@pytest.mark.parametrize(("height", "width"), [(12, 30), (30, 12), (12, 12), (13, 12)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_central_square_is_resized(tmp_path: Path, height: int, width: int, suffix: str) -> None:
    """A white square in the center of a black image fills the result."""
    array = np.zeros((height * 8, width * 8, 3), np.uint8)
    short, top, left = 96, (height * 8 - 96) // 2, (width * 8 - 96) // 2
    array[top : top + short, left : left + short] = 255
    image = read_image(saved(tmp_path / f"a{suffix}", array), 3, side=6)
    assert image.shape == (3, 6, 6)
    assert image[:, 1:5, 1:5].min() > 250
    assert image.float().mean() > 240


def test_resizing_averages_pixels(tmp_path: Path) -> None:
    array = np.indices((32, 32)).sum(0) % 2 * 200
    image = read_image(saved(tmp_path / "a.png", array.astype(np.uint8)), 1, side=4)
    assert image.float().sub(100).abs().max() < 8


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about files that it can still read
@pytest.mark.parametrize(
    "suffix",
    [
        ".png",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (".jpg", ".gif", ".bmp", ".ppm", ".tif", ".webp")),
    ],
)
def test_damaged_images_raise_known_errors_and_half_an_image_is_refused(tmp_path: Path, suffix: str) -> None:
    """Wherever a file is truncated or changed, only ``IMAGE_ERRORS`` are raised."""
    path = saved(tmp_path / f"a{suffix}", pixels(5, 9, 9))
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for cut in range(0, len(content), 1 + len(content) // 60):
        damaged = bytearray(content)
        damaged[cut] ^= int(generator.integers(1, 256))
        for data in (content[:cut], damaged):
            path.write_bytes(data)
            try:
                assert read_image(path, 3, side=8).shape == (3, 8, 8)
                assert cut > len(content) // 2 or data is damaged, "half a file is no image"
            except IMAGE_ERRORS:
                pass


# Folders ----------------------------------------------------------------------------------------------------------


def file_sets(task: Images) -> dict[str, set[str]]:
    return {split: set(task.files[split]) for split in SPLITS}


def test_class_folders_are_split_by_file_name_only(tmp_path: Path) -> None:
    task = Images(folder=str(write_images(tmp_path / "here")), side=4)
    assert task.class_names == ("cat", "cow", "dog")
    assert [len(task.files[split]) for split in SPLITS] == [30, 3, 3]
    assert len(set.union(*file_sets(task).values())) == 36
    assert task.chance == 1 / 3
    for split in SPLITS:
        labels = task.examples(split).labels.tolist()
        assert [task.class_names[label] for label in labels] == [file.split("/")[0] for file in task.files[split]]
    (tmp_path / "here").rename(tmp_path / "there")
    assert file_sets(Images(folder=str(tmp_path / "there"), side=4)) == file_sets(task)


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_folders_of_splits_are_kept(tmp_path: Path, validation: str) -> None:
    for first, split in enumerate(("train", validation, "test")):
        write_images(tmp_path / split, count=4, first=4 * first)
    task = Images(folder=str(tmp_path), side=4)
    for split, folder in zip(SPLITS, ("train", validation, "test"), strict=True):
        assert len(task.files[split]) == 12
        assert all(file.startswith(f"{folder}/") for file in task.files[split])
    image = read_image(tmp_path / "test" / "dog" / "9.png", 3, side=4)
    inputs, _, labels, *_ = task.examples("test")
    row = task.files["test"].index("test/dog/9.png")
    assert labels[row] == 2
    torch.testing.assert_close(inputs[row], task.grid.tokens(image[None])[0])


@pytest.mark.parametrize(("there", "sizes"), [(("test",), [30, 3, 9]), (("val",), [30, 9, 3]), ((), [30, 3, 3])])
def test_a_split_without_a_folder_is_taken_from_train(tmp_path: Path, there: tuple[str, ...], sizes: list[int]) -> None:
    write_images(tmp_path / "train", count=12)
    for split in there:
        write_images(tmp_path / split, count=3, first=12)
    task = Images(folder=str(tmp_path), side=4)
    assert [len(task.files[split]) for split in SPLITS] == [sizes[0] + 3 * len(there), *sizes[1:]]
    assert sum(map(len, task.files.values())) == len(set.union(*file_sets(task).values()))


def test_limits_keep_the_largest_classes_and_equally_many_images_of_each(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_images(tmp_path, names=["dog"], count=3, first=12)
    task = Images(folder=str(tmp_path), side=4, classes=2, train=9)
    assert (len(task.class_names), "dog" in task.class_names) == (2, True)
    assert torch.bincount(task.examples("train").labels).tolist() == [4, 4]


def test_files_and_folders_that_are_no_classes_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = file_sets(Images(folder=str(write_images(tmp_path)), side=4))
    write_images(tmp_path, names=["_old", ".cache"])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("what this is")
    (tmp_path / "cat" / "._0.png").write_bytes(b"what a Mac leaves behind")
    with caplog.at_level(logging.WARNING):
        assert file_sets(Images(folder=str(tmp_path), side=4)) == before
        assert caplog.messages == [f"{tmp_path}: 36 .png files are read; not read, by their ending: 1 .txt"]
        write_images(tmp_path, names=["rare"], count=2)
        assert file_sets(Images(folder=str(tmp_path), side=4)) == before
    assert "fewer than 3 images, too few to split: rare" in caplog.text


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def deep(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(buffer, "TIFF")
    path.write_bytes(buffer.getvalue())


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "cannot identify image file"),
    "text": (lambda path: path.write_text("once upon a time"), "cannot identify image file"),
    "truncated": (shortened, ""),
    "gone": (lambda path: path.unlink(), "No such file"),
    "of 32 bits": (deep, "32 bits per pixel; 8 and 16 can be read"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_an_unusable_image_among_many_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], message: str
) -> None:
    task = Images(folder=str(write_images(tmp_path)), side=4)
    bad = task.files["train"][3]
    damage(tmp_path / bad)
    with caplog.at_level(logging.WARNING):
        inputs, _, labels, *_ = task.examples("train")
    assert len(inputs) == len(labels) == 29
    assert f"1 of 30 train files are unusable, such as {bad}: " in caplog.text
    assert message in caplog.text
    assert torch.bincount(labels).tolist() == [9, 10, 10]


def test_many_unusable_images_are_refused(tmp_path: Path) -> None:
    task = Images(folder=str(write_images(tmp_path)), side=4)
    for file in task.files["train"][:4]:
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(ValueError, match=f"4 of 30 train files are unusable, such as {task.files['train'][0]}: "):
        task.examples("train")


def one_class(folder: Path) -> None:
    for name in ("cat", "cow"):
        (folder / name).rename(folder / f"_{name}")


def both(folder: Path) -> None:
    for split in ("train", "validation", "val"):
        write_images(folder / split)


def strange(folder: Path) -> None:
    write_images(folder / "train", count=3)
    write_images(folder / "test", names=["cat", "eel"], count=3)


def unlabelled(folder: Path) -> None:
    write_images(folder / "train", count=3)
    write_images(folder, names=["test"], count=3)


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (one_class, {}, r"two class folders of 3 images or more, ending in \.png, .*; there are dog \(12\)"),
        (both, {}, "validation and val; it takes one of them"),
        (strange, {}, "test: it has eel, which train lacks"),
        (unlabelled, {}, "test: it contains no class folder of images"),
        (lambda _: None, {"patch": 5}, "patch=5: it must fit into the image, 4 by 4 pixels"),
        (
            lambda _: None,
            {"patch": None},
            "patch=None: single pixels are tokens by their gray level, but there are 3 channels",
        ),
        (lambda _: None, {"channels": "cmyk"}, "channels='cmyk': it must be gray or rgb"),
        (lambda _: None, {"side": 0}, "side=0: it must be a whole number from 1"),
        (lambda _: None, {"train": 2}, "train=2: it must be a whole number from 3"),
    ],
)
def test_unusable_folders_and_invalid_settings_are_refused_at_construction(
    tmp_path: Path, damage: Callable[[Path], object], settings: dict[str, object], message: str
) -> None:
    damage(write_images(tmp_path))
    with pytest.raises(ValueError, match=message):
        Images(**{"folder": str(tmp_path), "side": 4} | settings)


def test_other_patches_are_of_the_same_images(tmp_path):
    task = Images(folder=str(write_images(tmp_path)), side=8, patch=4)
    varied = task.with_input(patch=2)
    for split in SPLITS:
        own, other = task.data(split), varied.data(split)
        assert torch.equal(own.labels, other.labels)
        assert (own.inputs.shape[1:], other.inputs.shape[1:]) == ((4, 48), (16, 12))
        pixels = [F.fold(each.inputs.transpose(1, 2), 8, size, stride=size) for each, size in ((own, 4), (other, 2))]
        assert torch.equal(*pixels)
    with pytest.raises(ValueError, match="patch=9: it must fit into the image"):
        task.with_input(patch=9)


@pytest.mark.parametrize("settings", [{}, {"patch": 2, "channels": "gray"}, {"patch": None, "channels": "gray"}])
def test_large_splits_are_stored_and_give_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    folder = write_images(tmp_path / "images")
    shortened(folder / "cat" / "0.png")
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    in_memory = Images(folder=str(folder), side=8, **settings)
    batches = {split: list(in_memory.batches(split, 5, shuffle=3)) for split in SPLITS}
    warnings = caplog.messages
    caplog.clear()
    for module in ("images", "sources.image_task"):
        monkeypatch.setattr(f"spaces.tasks.{module}.LARGE", 1)
    monkeypatch.setattr("spaces.tasks.images.CHUNK", 7)
    for _ in range(2):  # stored, and found
        stored = Images(folder=str(folder), side=8, **settings)
        assert stored.sample(2).inputs.equal(in_memory.sample(2).inputs)
        for split in SPLITS:
            for found, expected in zip(stored.batches(split, 5, shuffle=3), batches[split], strict=True):
                assert torch.equal(found.inputs, expected.inputs)
                assert found.padding is expected.padding is None
                assert torch.equal(found.labels, expected.labels)
    assert warnings == caplog.messages
    assert len(list((tmp_path / "cache").iterdir())) == 3
