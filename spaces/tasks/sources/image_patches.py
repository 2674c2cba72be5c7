"""Images as token sequences, of square patches or of single gray pixels, and reading of image files.

Patches as in Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 3.1; sequences of gray pixels as in the
image tasks of Tay et al., "Long Range Arena", 2021.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from spaces.dimensions import check_whole
from spaces.tasks import TaskSpec

CHANNELS = {"gray": 1, "rgb": 3}
# What Pillow raises for files that are no image, truncated, damaged or implausibly large.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How images of one size become tokens, in row-major order.

    With ``patch`` a token is a square of ``patch`` by ``patch`` pixels: a frame of its values in -1..1, channel by
    channel. With ``patch=None`` each pixel is a token, and its gray level 0..255 is the token id.

    Raises:
        ValueError: ``patch`` does not divide the image, or is None with several channels.
    """

    height: int
    width: int
    channels: int
    patch: int | None

    def __post_init__(self) -> None:
        check_whole(1, height=self.height, width=self.width, channels=self.channels)
        if self.patch is None:
            if self.channels != 1:
                raise ValueError(
                    f"patch=None: single pixels are tokens by their gray level, but there are {self.channels} channels"
                )
            return
        check_whole(1, patch=self.patch)
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"patch={self.patch}: it must divide the image size, {self.height} by {self.width} pixels")

    def spec(self, classes: int) -> TaskSpec:
        """The spec of an image classification task."""
        if self.patch is None:
            length = self.height * self.width
            return TaskSpec(length=length, vocabulary=256, ordinal=True, classes=classes, per_token=False)
        length = self.height * self.width // self.patch**2
        features = self.channels * self.patch**2
        return TaskSpec(length=length, features=features, classes=classes, per_token=False, image_shape=self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    def tokens(self, images: Tensor) -> Tensor:
        """``(images, channels, height, width)`` uint8 to ids ``(images, length)`` or ``(images, length, features)``."""
        if self.patch is None:
            return images.flatten(1).long()
        return extract_patches(images.float() / 127.5 - 1, self.patch)

    def stored_tokens(self, images: Tensor) -> NDArray[np.uint8]:
        """The tokens of images one after another, ``(tokens,)`` or ``(tokens, features)``, as values 0..255."""
        if self.patch is None:
            return images.flatten().numpy()
        rows, columns = self.height // self.patch, self.width // self.patch
        squares = images.view(-1, self.channels, rows, self.patch, columns, self.patch).permute(0, 2, 4, 1, 3, 5)
        return squares.reshape(-1, self.channels * self.patch**2).numpy()


def extract_patches(images: Tensor, side: int) -> Tensor:
    """``(images, channels, height, width)`` to ``(images, patches, channels * side * side)``, in row-major order."""
    return F.unfold(images, kernel_size=side, stride=side).transpose(1, 2).contiguous()


def merge_patches(patches: Tensor, side: int, channels: int, height: int, width: int) -> Tensor:
    """The inverse of :func:`extract_patches`, for images of ``(channels, height, width)``."""
    squares = patches.view(-1, height // side, width // side, channels, side, side)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


def square_grid(side: int, channels: str, patch: int | None) -> Grid:
    """The grid of images of ``side`` by ``side`` pixels; ``channels`` is ``gray`` or ``rgb``."""
    check_whole(1, side=side)
    if channels not in CHANNELS:
        raise ValueError(f"channels={channels!r}: it must be gray or rgb")
    return Grid(height=side, width=side, channels=CHANNELS[channels], patch=patch)


def read_image(path: Path, channels: int, *, side: int | None = None) -> Tensor:
    """Pixels ``(channels, height, width)`` uint8 of an image file, rotated by its EXIF orientation, on white.

    Args:
        path: the file; of an animation the first frame is read.
        channels: 1 converts to gray, 3 to RGB.
        side: resize the shorter side to this many pixels and crop the central square; None keeps the size.

    Raises:
        IMAGE_ERRORS: the file is no valid image.
    """
    with Image.open(path) as file:
        if side is not None:
            file.draft(None, (2 * side, 2 * side))  # decode a large JPEG at a reduced size
        image = _eight_bits(ImageOps.exif_transpose(file))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    if side is not None:
        image = ImageOps.fit(image, (side, side))
    return torch.from_numpy(np.array(image)).view(image.height, image.width, channels).permute(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The upper 8 bits of a 16-bit image; Pillow's own conversion would clip at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per pixel; 8 and 16 can be read")
    return image
