"""Writes small images and arrays in the layouts that tasks read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, height: int = 12, width: int = 12, channels: int = 3) -> np.ndarray:
    """Random pixels ``(height, width, channels)`` uint8."""
    return np.random.default_rng(seed).integers(256, size=(height, width, channels), dtype=np.uint8)


def write_images(
    folder: Path, *, names: Iterable[str] = ("cat", "cow", "dog"), count: int = 12, first: int = 0, suffix: str = ".png"
) -> Path:
    """A folder per class with ``count`` distinct images each."""
    for at, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            Image.fromarray(pixels(1000 * at + number)).save(folder / name / f"{number}{suffix}")
    return folder


def write_arrays(file: Path, *, per_token: bool = False) -> Path:
    """40 examples of 2 to 7 ids, padded; labels -3, 4 and 9, per example or per token."""
    generator = np.random.default_rng(0)
    padding = np.arange(7) >= generator.integers(2, 8, size=40)[:, None]
    labels = generator.choice([-3, 4, 9], size=(40, 7) if per_token else 40)
    np.savez(file, inputs=generator.integers(30, size=(40, 7)), labels=labels, padding=padding)
    return file


def write_cifar10(folder: Path, *, pickled: bool = False, count: int = 10) -> Path:
    """``count`` images per file, in CIFAR-10's binary format or as pickled by Python 2; label n % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        images = np.stack([pixels(count * at + row, 3, 32, 32).reshape(-1) for row in range(count)])
        labels = [(count * at + row) % 10 for row in range(count)]
        if pickled:
            (folder / name).write_bytes(python2_pickle(images, labels))
        else:
            rows = b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))
            (folder / f"{name}.bin").write_bytes(rows)
    return folder


def python2_pickle(images: np.ndarray, labels: list[int]) -> bytes:
    """A pickled dictionary of ``data`` and ``labels`` as Python 2 and its NumPy wrote it."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    kind = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    content = images.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
    shape = b"(" + b"".join(map(number, images.shape)) + b"t"
    array += b"(" + number(1) + shape + kind + b"\x89T" + len(content).to_bytes(4, "little") + content + b"tb"
    return (
        b"\x80\x02}(" + text(b"labels") + b"](" + b"".join(map(number, labels)) + b"e" + text(b"data") + array + b"u."
    )


def write_pathfinder(folder: Path, *, side: int = 6, batches: int = 3, count: int = 20, arrays: bool = False) -> Path:
    """Two difficulties in the layout of Long Range Arena's ``pathfinder32``; odd images have the label 1."""
    for difficulty in ("curv_baseline", "curv_contour_length_14"):
        for batch in range(batches):
            images, metadata = folder / difficulty / f"imgs/{batch}", folder / difficulty / "metadata"
            images.mkdir(parents=True, exist_ok=True)
            metadata.mkdir(exist_ok=True)
            rows = []
            for number in range(count):
                image = pixels(1000 * batch + number, side, side, 1)[:, :, 0]
                Image.fromarray(image).save(images / f"sample_{number}.png")
                drawn = "1.0 14 4.666666666666667 2 0.5 1 1"
                rows.append(f"imgs/{batch} sample_{number}.png {number} {number % 2} {drawn}")
            if arrays:
                np.save(metadata / f"{batch}.npy", np.array([row.split() for row in rows]))
            else:
                (metadata / f"{batch}.npy").write_text("".join(f"{row}\n" for row in rows))
    return folder
