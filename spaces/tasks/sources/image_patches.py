"""Pictures as tokens: square patches of numbers, or single pixels by their grey; and files read as such pictures.

Patches are those of Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 3.1; pixels as a sequence of
grey levels are the image tasks of Tay et al., "Long Range Arena", 2021.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from spaces.dimensions import check_whole
from spaces.tasks import TaskSpec
from spaces.tasks.patches import patches

CHANNELS = {"gray": 1, "rgb": 3}
# What Pillow raises where a file is no picture, is cut short, damaged, or larger than any sound one.
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How pictures of one size become tokens, row by row.

    With a ``patch`` a token is a square of so many pixels a side, a frame of its values -1..1, channel by channel.
    Without one each pixel is a token, and its grey 0..255 the token's id.

    Raises:
        ValueError: patches don't fill the picture, or pixels of several channels have no grey.
    """

    height: int
    width: int
    channels: int
    patch: int | None

    def __post_init__(self) -> None:
        check_whole(1, height=self.height, width=self.width, channels=self.channels)
        if self.patch is None:
            if self.channels != 1:
                raise ValueError(f"patch=None: a token a pixel is its grey, and there are {self.channels} channels")
            return
        check_whole(1, patch=self.patch)
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"patch={self.patch}: it must divide {self.height} and {self.width}, the pixels a side")

    def spec(self, classes: int) -> TaskSpec:
        """Of a task that tells so many classes of pictures apart."""
        if self.patch is None:
            return TaskSpec(length=self.height * self.width, vocabulary=256, classes=classes, per_token=False)
        length = self.height * self.width // self.patch**2
        return TaskSpec(length=length, features=self.channels * self.patch**2, classes=classes, per_token=False)

    def tokens(self, pictures: Tensor) -> Tensor:
        """``(pictures, channels, height, width)`` uint8 to ids ``(pictures, length)`` or frames of ``features``."""
        if self.patch is None:
            return pictures.flatten(1).long()
        return patches(pictures.float() / 127.5 - 1, self.patch)


def square(side: int, channels: str, patch: int | None) -> Grid:
    """The grid of pictures of ``side`` by ``side`` pixels, ``gray`` or ``rgb``."""
    check_whole(1, side=side)
    if channels not in CHANNELS:
        raise ValueError(f"channels={channels!r}: it must be gray or rgb")
    return Grid(height=side, width=side, channels=CHANNELS[channels], patch=patch)


def read_picture(path: Path, channels: int, *, side: int | None = None) -> Tensor:
    """A file's pixels ``(channels, height, width)`` uint8, upright, what is transparent on white.

    With ``side`` the shorter side is resized to so many pixels and the middle square is cut out. Of several frames it
    is the first.

    Raises:
        UNREADABLE: one of these, for a file that holds no sound picture.
    """
    with Image.open(path) as file:
        if side is not None:
            file.draft(None, (2 * side, 2 * side))  # a large JPEG need not be decoded at its full size
        image = _eight_bits(ImageOps.exif_transpose(file))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    if side is not None:
        image = ImageOps.fit(image, (side, side))
    return torch.from_numpy(np.array(image)).view(image.height, image.width, channels).permute(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16 bits a pixel by its upper 8, which Pillow would cut off at 255 instead."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel; 8 and 16 can be read")
    return image
