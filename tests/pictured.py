"""Tiny pictures in the layouts that tasks read, written by the tests themselves."""

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
