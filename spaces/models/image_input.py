"""What a checkpoint of a vision transformer says of its images, in ``config.json`` and ``preprocessor_config.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from spaces.dimensions import check_whole

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class ImageInput:
    """The images that a checkpoint reads.

    Args:
        side: height and width in pixels.
        patch: height and width of a patch.
        channels: 3 of RGB, 1 of gray.
        mean: that is subtracted from the values of each channel, which are in 0..1.
        std: by which the difference is divided.
    """

    side: int
    patch: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return (self.side // self.patch) ** 2

    @classmethod
    def of(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """Those of a checkpoint.

        Raises:
            ValueError: a setting is missing, or is not supported.
        """
        names = ("image_size", "patch_size", "num_channels")
        for name in names:
            if name not in config:
                raise ValueError(f"{folder / 'config.json'}: {name} is missing")
            if isinstance(config[name], list):
                raise ValueError(f"{folder}: {name}={config[name]!r} is not supported; it must be one number")
        side, patch, channels = (config[name] for name in names)
        check_whole(1, **{name: config[name] for name in names})
        if channels not in (1, 3) or side % patch:
            raise ValueError(
                f"{folder}: images of {side} pixels and {channels} channels in patches of {patch} are not supported;"
                " there must be 1 or 3 channels, and the patch must divide the image"
            )
        mean, std = _normalisation(folder / PREPROCESSOR, channels)
        return cls(side, patch, channels, mean, std)


def _normalisation(path: Path, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, by which values in 0..1 are normalised."""
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path}: no JSON: {error}") from error
    if not isinstance(known, dict):
        raise ValueError(f"{path}: it must be a JSON object")
    if known.get("do_rescale") is False:
        raise ValueError(f"{path}: do_rescale=False is not supported; it must be True")
    if known.get("do_normalize") is False:
        return (0.0,) * channels, (1.0,) * channels
    found = [known.get(name) or [0.5] * channels for name in ("image_mean", "image_std")]
    numbers = all(isinstance(each, list) and all(map(_is_number, each)) for each in found)
    if not numbers or {len(each) for each in found} != {channels} or min(found[1]) <= 0:
        raise ValueError(
            f"{path}: image_mean={found[0]!r}, image_std={found[1]!r}: they must have a number per channel, {channels},"
            " and std must be above 0"
        )
    mean, std = map(tuple, found)
    return mean, std


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
