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
from PIL import Image, ImageOps
from torch import Tensor

from spaces.dimensions import check_whole
from spaces.tasks import TaskSpec

MAX_SIDE = 2**14  # pixels
CHANNELS = {"gray": 1, "rgb": 3}
# What Pillow raises for files that are no image, truncated, damaged or implausibly large.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How images of one size become tokens, in row-major order.

    With ``patch`` a token is a square of ``patch`` by ``patch`` pixels: a frame of its values in -1..1, channel by
    channel; an image that ``patch`` does not divide is padded on the right and at the bottom by its last column and
    row. With ``patch=None`` each pixel is a token, and its gray level is the token id.

    Args:
        height: of an image in pixels.
        width: of an image in pixels.
        channels: of an image.
        patch: height and width of a patch in pixels, or None.
        levels: the values of a pixel are 0..levels-1.

    Raises:
        ValueError: ``patch`` is larger than the image, or is None with several channels.
    """

    height: int
    width: int
    channels: int
    patch: int | None
    levels: int = 256

    def __post_init__(self) -> None:
        check_whole(1, height=self.height, width=self.width, channels=self.channels)
        if self.patch is None:
            if self.channels != 1:
                raise ValueError(
                    f"patch=None: single pixels are tokens by their gray level, but there are {self.channels} channels"
                )
            return
        check_whole(1, patch=self.patch)
        if self.patch > min(self.height, self.width):
            raise ValueError(f"patch={self.patch}: it must fit into the image, {self.height} by {self.width} pixels")

    def spec(self, classes: int) -> TaskSpec:
        """The spec of an image classification task."""
        if self.patch is None:
            length = self.height * self.width
            return TaskSpec(length=length, vocabulary=self.levels, ordinal=True, classes=classes, per_token=False)
        _, height, width = self.shape
        length = height * width // self.patch**2
        features = self.channels * self.patch**2
        return TaskSpec(length=length, features=features, classes=classes, per_token=False, image_shape=self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width, with the padding."""
        side = self.patch or 1
        return self.channels, -(-self.height // side) * side, -(-self.width // side) * side

    def tokens(self, images: Tensor) -> Tensor:
        """``(images, channels, height, width)`` uint8 to ids ``(images, length)`` or ``(images, length, features)``."""
        if self.patch is None:
            return images.flatten(1).long()
        return self.cut(images).float().div_((self.levels - 1) / 2).sub_(1)

    def cut(self, images: Tensor) -> Tensor:
        """Images of any values, padded, to patches ``(images, length, features)``."""
        assert self.patch is not None
        _, height, width = self.shape
        if (height, width) != (self.height, self.width):
            rows, columns = (torch.arange(size) for size in (height, width))
            images = images[:, :, rows.clamp(max=self.height - 1)][..., columns.clamp(max=self.width - 1)]
        return extract_patches(images, self.patch)


def extract_patches(images: Tensor, side: int) -> Tensor:
    """``(images, channels, height, width)`` to ``(images, patches, channels * side * side)``, in row-major order."""
    count, channels, height, width = images.shape
    squares = images.reshape(count, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(count, -1, channels * side**2)


def merge_patches(patches: Tensor, side: int, channels: int, height: int, width: int) -> Tensor:
    """The inverse of :func:`extract_patches`, for images of ``(channels, height, width)``."""
    squares = patches.view(-1, height // side, width // side, channels, side, side)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


def square_grid(side: int, channels: str, patch: int | None) -> Grid:
    """The grid of images of ``side`` by ``side`` pixels; ``channels`` is ``gray`` or ``rgb``."""
    check_whole(1, MAX_SIDE, side=side)
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
