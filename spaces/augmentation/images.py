"""Random shift, flip, crop and erasing of images that a task has as patches or as pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.tasks import Batch, TaskSpec
from spaces.tasks.sources.image_patches import extract_patches, merge_patches

CROP_RATIO = 4 / 3  # width to height of a crop at most, and at least its inverse; as in torchvision
ERASED_AREA = (0.02, 0.33)  # share of the image, from Zhong et al.
ERASED_RATIO = 1 / 0.3  # height to width at most, and at least its inverse


class ImageAugmentation:
    """Each image of a batch gets its own draws.

    A crop of random area and aspect ratio is resized to the full size (Szegedy et al., "Going Deeper with
    Convolutions", 2015); pixels that a shift moves in repeat the border. Erasing replaces a rectangle by uniform noise
    (Zhong et al., "Random Erasing Data Augmentation", 2017).

    Args:
        shape: channels, height and width of the images.
        spec: of the task.
        shift: pixels at most, in each direction.
        flip: probability of a horizontal flip.
        crop: smallest share of the area; 1 for no crop.
        erase: probability of erasing.
    """

    def __init__(
        self, shape: tuple[int, int, int], spec: TaskSpec, *, shift: int, flip: float, crop: float, erase: float
    ) -> None:
        self._shape, self._spec = shape, spec
        self._patch = None if spec.features is None else math.isqrt(spec.features // shape[0])
        self._shift, self._flip, self._crop, self._erase = shift, flip, crop, erase

    def __call__(self, batch: Batch) -> Batch:
        """Inputs ``(batch, pixels)`` int64 or ``(batch, patches, features)`` float32 stay so."""
        images = self._images(batch.inputs)
        if self._shift or self._flip or self._crop < 1:
            images = warp(images, shift=self._shift, flip=self._flip, crop=self._crop)
        if self._erase:
            images = erase(images, self._erase, self._noise(images))
        return batch._replace(inputs=self._tokens(images))

    def _images(self, inputs: Tensor) -> Tensor:
        if self._patch is None:
            return inputs.view(-1, *self._shape).float()
        return merge_patches(inputs, self._patch, *self._shape)

    def _tokens(self, images: Tensor) -> Tensor:
        if self._patch is None:
            return images.flatten(1).round().long()
        return extract_patches(images, self._patch)

    def _noise(self, images: Tensor) -> Tensor:
        """Uniform over the values of pixels: gray levels, or -1..1."""
        noise = torch.rand_like(images)
        return noise * 2 - 1 if self._spec.vocabulary is None else noise * (self._spec.vocabulary - 1)


def warp(images: Tensor, *, shift: int, flip: float, crop: float) -> Tensor:
    """Crop, flip and shift ``(batch, channels, height, width)`` by one bilinear interpolation."""
    height, width = images.shape[2:]
    draws = torch.rand(7, len(images), device=images.device)
    size_x = size_y = torch.ones_like(draws[0])  # of the crop, as a share of the image
    if crop < 1:
        area, ratio = crop + (1 - crop) * draws[0], CROP_RATIO ** (2 * draws[1] - 1)
        size_x, size_y = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - size_x) * (2 * draws[2] - 1), (1 - size_y) * (2 * draws[3] - 1)  # centre; the image is -1..1
    x = x + 2 / width * _whole_pixels(draws[4], shift)
    y = y + 2 / height * _whole_pixels(draws[5], shift)
    mirror = torch.where(draws[6] < flip, -1.0, 1.0)
    zero = torch.zeros_like(x)
    rows = torch.stack([size_x * mirror, zero, x]), torch.stack([zero, size_y, y])
    grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(images.shape), align_corners=False)
    # Repeats the border; the option padding_mode="border" is not available on every device.
    last = grid.new_tensor([1 - 1 / width, 1 - 1 / height])
    return F.grid_sample(images, grid.clamp(-last, last), align_corners=False)


def _whole_pixels(draws: Tensor, most: int) -> Tensor:
    """Whole numbers from ``-most`` to ``most``, from uniform draws in 0..1."""
    return (draws * (2 * most + 1)).floor() - most


def erase(images: Tensor, probability: float, noise: Tensor) -> Tensor:
    """Replace a random rectangle of some of the images ``(batch, channels, height, width)`` by ``noise``."""
    height, width = images.shape[2:]
    chosen, area, ratio, top, left = torch.rand(5, len(images), 1, device=images.device)
    area = (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area) * height * width
    ratio = ERASED_RATIO ** (2 * ratio - 1)
    rows = _interval(height, (area * ratio).sqrt(), top) & (chosen < probability)
    columns = _interval(width, (area / ratio).sqrt(), left)
    return torch.where((rows[:, :, None] & columns[:, None])[:, None], noise, images)


def _interval(length: int, size: Tensor, place: Tensor) -> Tensor:
    """``(batch, length)`` bool, true in an interval of ``size`` whose place is 0 at the beginning and 1 at the end."""
    size = size.round().clamp(1, length)
    start = (place * (length - size)).round()
    at = torch.arange(length, device=size.device)
    return (at >= start) & (at < start + size)
