"""The embedding of a vision transformer: patches, class tokens before them, and learned positions.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, equation 1; with a distillation token as in Touvron et al.,
"Training data-efficient image transformers & distillation through attention", 2021, section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.models.checkpoint import Checkpoint
from spaces.models.image_input import ImageInput
from spaces.tasks import TaskSpec


class PatchEmbedding(nn.Module):
    """Patches ``(batch, n, features)`` of values in -1..1 to ``(batch, class tokens + n, width)``.

    Args:
        source: of a family that reads images.
        spec: of the task.

    Raises:
        ValueError: the task has other inputs.
    """

    def __init__(self, source: Checkpoint, spec: TaskSpec) -> None:
        super().__init__()
        image = source.image
        assert image is not None
        _check_images(source, image, spec)
        self.projection = nn.Linear(image.channels * image.patch**2, source.width)
        self.class_tokens = nn.Parameter(torch.zeros(source.class_tokens, source.width))
        self.positions = nn.Parameter(torch.zeros(source.class_tokens + image.patches, source.width))

    def forward(self, patches: Tensor) -> Tensor:
        """See the class."""
        # Not len(patches), a number, with which no program for batches of any size can be exported.
        x = torch.cat([self.class_tokens.expand(patches.shape[0], -1, -1), self.projection(patches)], dim=1)
        return x + self.positions

    @torch.no_grad()
    def load(self, source: Checkpoint) -> None:
        """Take over the weights; the normalisation of the pixels becomes a part of the projection.

        A checkpoint reads ``((v + 1) / 2 - mean) / std`` for values ``v`` in -1..1.
        """
        image, family, width = source.image, source.family, source.width
        assert image is not None
        shape = (width, image.channels, image.patch, image.patch)
        weight = source.tensor(f"{family.patches}.weight", shape)
        bias = source.tensor(f"{family.patches}.bias", (width,))
        mean, std = (torch.tensor(each)[:, None, None] for each in (image.mean, image.std))
        self.projection.weight.copy_((weight / (2 * std)).flatten(1))
        self.projection.bias.copy_(bias + (weight * (0.5 - mean) / std).sum((1, 2, 3)))
        self.class_tokens.copy_(torch.cat([source.tensor(name, (1, 1, width))[0] for name in family.class_tokens]))
        self.positions.copy_(source.tensor(family.positions, (1, *self.positions.shape))[0])


def _check_images(source: Checkpoint, image: ImageInput, spec: TaskSpec) -> None:
    if spec.image_shape is None or spec.per_token or spec.answer_length is not None or spec.subtasks:
        raise ValueError("this checkpoint classifies images: the task must be one of images in patches, such as images")
    if spec.image_shape != (image.channels, image.side, image.side) or spec.length != image.patches:
        channels, height, width = spec.image_shape
        raise ValueError(
            f"the task has {spec.length} patches of images of {channels} x {height} x {width}; the checkpoint reads"
            f" {image.channels} x {image.side} x {image.side}, in patches of {image.patch}: task.side={image.side}"
            f" task.channels={'rgb' if image.channels == 3 else 'gray'} space.input.patch={image.patch}"
        )
