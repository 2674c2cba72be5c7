"""Tiny pictures and arrays in the layouts that tasks read, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, height: int = 12, width: int = 12, channels: int = 3) -> np.ndarray:
    """Noise of ``(height, width, channels)``, another for each seed."""
    return np.random.default_rng(seed).integers(256, size=(height, width, channels), dtype=np.uint8)


def write_pictures(
    folder: Path, *, names: Iterable[str] = ("cat", "cow", "dog"), count: int = 12, first: int = 0, suffix: str = ".png"
) -> Path:
    """A folder a class of ``count`` pictures each, all different."""
    for at, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            Image.fromarray(pixels(1000 * at + number)).save(folder / name / f"{number}{suffix}")
    return folder


def write_arrays(file: Path, *, per_token: bool = False) -> Path:
    """40 examples of 2 to 7 ids, padded; labels -3, 4 and 9, one an example or one a token."""
    generator = np.random.default_rng(0)
    padding = np.arange(7) >= generator.integers(2, 8, size=40)[:, None]
    labels = generator.choice([-3, 4, 9], size=(40, 7) if per_token else 40)
    np.savez(file, inputs=generator.integers(30, size=(40, 7)), labels=labels, padding=padding)
    return file
