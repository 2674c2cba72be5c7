"""A convolutional stem: convolutions with small strides in place of the projection of image patches.

Xiao et al., "Early Convolutions Help Transformers See Better", 2021, section 3: small data sets in particular are
learned faster and better than from projected patches. Each convolution is followed by batch normalisation and a ReLU,
and the last of them by a projection; the number of channels doubles from one to the next, up to the model's width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from spaces.tasks.sources.image_patches import merge_patches


class ConvolutionStem(nn.Module):
    """Patches ``(batch, patches, features)`` in row-major order to ``(batch, patches, width)``.

    There is one convolution per prime factor of the side of a patch, with that stride: two 3x3 convolutions of stride 2
    for patches of 4 by 4 pixels. They see across the borders of patches.

    Args:
        shape: channels, height and width of the images.
        features: numbers per patch.
        width: features per token.
    """

    def __init__(self, shape: tuple[int, int, int], features: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.patch = math.isqrt(features // shape[0])
        strides = list(prime_factors(self.patch)) or [1]
        layers: list[nn.Module] = []
        channels = shape[0]
        for left, stride in zip(reversed(range(len(strides))), strides, strict=True):
            wider = max(1, width >> left)
            kernel, padding = (2 * stride - 1, stride // 2) if stride > 1 else (3, 1)
            layers += [
                nn.Conv2d(channels, wider, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(),
            ]
            channels = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, width, 1))

    def forward(self, patches: Tensor) -> Tensor:
        """See the class."""
        x: Tensor = self.layers(merge_patches(patches, self.patch, *self.shape))
        return x.flatten(2).transpose(1, 2)


def prime_factors(number: int) -> Iterator[int]:
    """The prime factors of ``number`` in ascending order; none of 1."""
    factor = 2
    while number > 1:
        while number % factor == 0:
            yield factor
            number //= factor
        factor += 1
