"""Input embeddings of the model's width: lookup tables for ids, a projection or convolutions for frames.

A frame is a vector of a continuous input, such as a column of a spectrogram or an image patch (Dosovitskiy et al., "An
Image is Worth 16x16 Words", 2021, equation 1). Speech recognisers put two convolutions in front of spectrograms (Dong
et al., "Speech-Transformer", 2018).

The embedding of an id may include those of the n-grams that end at it, hashed into buckets: Bojanowski et al.,
"Enriching Word Vectors with Subword Information", 2017; for the bytes of a transformer Pagnoni et al., "Byte Latent
Transformer", 2024, section 3.2.1. With a stride, neighbouring ids are averaged and neighbouring frames are projected
together, as one position: Tay et al., "Charformer", 2022, section 2.1.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.models.config import ModelConfig
from spaces.models.stem import ConvolutionStem
from spaces.tasks import TaskSpec

MULTIPLIER, MIXER = 0x2545F4914F6CDD1D, 0x27D4EB2F165667C5  # odd; products wrap around at 64 bits


class Embedding(nn.Module):
    """Ids ``(batch, n)`` or frames ``(batch, n, features)`` to ``(batch, positions, width)``; 0 at padding.

    Args:
        spec: the task's specification.
        config: the settings; there are ``ceil(n / config.stride)`` positions.

    Raises:
        ValueError: a setting does not fit the task.
    """

    def __init__(self, spec: TaskSpec, config: ModelConfig) -> None:
        super().__init__()
        if config.stride > 1 and spec.per_token and spec.answer_length is None:
            raise ValueError(f"stride={config.stride}: this task has an output per token, so it must be 1")
        if config.ngrams > 1 and spec.vocabulary is None:
            raise ValueError(f"ngrams={config.ngrams}: they are of token ids, and this task has frames")
        _check_front_end(spec, config)
        self.stride = config.stride
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.first: nn.Module
        self.second = None
        if spec.features is None:
            assert spec.vocabulary is not None, "a TaskSpec has one of the two"
            joined = config.ngrams > 1 or config.stride > 1
            self.first = IdBags(spec.vocabulary, config) if joined else nn.Embedding(spec.vocabulary, config.width)
            with torch.no_grad():
                self.first.weight[: spec.vocabulary] *= config.embedding_std
        elif config.front_end == "stem":
            assert spec.image_shape is not None
            self.first = ConvolutionStem(spec.image_shape, spec.features, config.width)
        elif config.front_end == "convolution":
            self.first = nn.Conv1d(spec.features, config.width, 5, padding=2)
            self.second = nn.Conv1d(config.width, config.width, 3, padding=1)
        else:
            self.first = nn.Linear(config.stride * spec.features, config.width)

    def forward(self, inputs: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The embedding, and the padding mask of its positions.

        Args:
            inputs: ids or frames; those at padding are ignored.
            padding: padding mask, ``(batch, n)`` bool or None.
        """
        positions = self.positions_mask(padding)
        if isinstance(self.first, IdBags):
            x = self.first(inputs, padding)
        elif isinstance(self.first, nn.Embedding | ConvolutionStem):
            x = self.first(inputs)
        elif self.second is None:
            x = self.first(_joined(_zero_padding(inputs, padding), self.stride).flatten(2))
        else:
            x = F.gelu(self.first(_zero_padding(inputs, padding).transpose(1, 2))).transpose(1, 2)
            # The second convolution must see zeros at padding, as it does beyond the end of an unpadded sequence.
            x = self.second(_zero_padding(x, padding).transpose(1, 2)).transpose(1, 2)
            x = _joined(_zero_padding(x, padding), self.stride).sum(2) / _counts(x, padding, self.stride)
        return self.dropout(_zero_padding(x, positions)), positions

    def positions_mask(self, padding: Tensor | None) -> Tensor | None:
        """``(batch, n)`` to ``(batch, positions)``: a position is padding if all that it joins is."""
        if padding is None or self.stride == 1:
            return padding
        return _joined(padding[..., None], self.stride, fill=True).all(2)[..., 0]


class IdBags(nn.Module):
    """The mean over each position's ids of the sum of their n-gram embeddings.

    The embeddings of n-grams begin at 0, so those that training never met contribute nothing.

    Args:
        vocabulary: token ids are 0..vocabulary-1.
        config: the settings.
    """

    def __init__(self, vocabulary: int, config: ModelConfig) -> None:
        super().__init__()
        self.vocabulary, self.ngrams, self.buckets, self.stride = (
            vocabulary,
            config.ngrams,
            config.buckets,
            config.stride,
        )
        hashed = torch.zeros((config.ngrams - 1) * config.buckets, config.width)
        self.weight = nn.Parameter(torch.cat([torch.randn(vocabulary, config.width), hashed]))

    def forward(self, ids: Tensor, padding: Tensor | None) -> Tensor:
        """Ids ``(batch, n)`` to ``(batch, ceil(n / stride), width)``."""
        rows = _joined(self.rows(ids), self.stride).flatten(2)
        weights = torch.ones_like(ids[..., None], dtype=self.weight.dtype)
        weights = _joined(_zero_padding(weights, padding), self.stride) / _counts(ids, padding, self.stride)[..., None]
        weights = weights.expand(-1, -1, -1, self.ngrams).flatten(2)
        if torch.compiler.is_exporting():  # ONNX has no bags, and their loop is slow and beyond OpenVINO
            return (F.embedding(rows, self.weight) * weights[..., None]).sum(2)
        bags = F.embedding_bag(rows.flatten(0, 1), self.weight, mode="sum", per_sample_weights=weights.flatten(0, 1))
        return bags.view(*rows.shape[:2], -1)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of the table for the n-grams that end at each token, ``(batch, n, ngrams)``."""
        found, hashes = [ids], ids
        for length in range(2, self.ngrams + 1):
            # Beyond the beginning of the sequence there is an id of its own.
            earlier = F.pad(ids, (length - 1, 0), value=self.vocabulary)[:, : ids.shape[1]]
            hashes = hashes * MULTIPLIER + earlier + 1
            buckets = ((hashes ^ (hashes >> 31)) * MIXER >> 20).remainder(self.buckets)
            found.append(self.vocabulary + (length - 2) * self.buckets + buckets)
        return torch.stack(found, dim=-1)


def _joined(x: Tensor, stride: int, fill: float = 0) -> Tensor:
    """``(batch, n, features)`` to ``(batch, positions, stride, features)``, filled up at the end."""
    missing = -x.shape[1] % stride
    return (F.pad(x, (0, 0, 0, missing), value=fill) if missing else x).unflatten(1, (-1, stride))


def _counts(x: Tensor, padding: Tensor | None, stride: int) -> Tensor:
    """How many tokens or frames each position of ``x`` joins, at least 1: ``(batch, positions, 1)`` float."""
    present = _zero_padding(torch.ones(*x.shape[:2], 1, device=x.device), padding)
    return _joined(present, stride).sum(2).clamp(min=1)


def _check_front_end(spec: TaskSpec, config: ModelConfig) -> None:
    if config.front_end == "stem" and spec.image_shape is None:
        raise ValueError("front_end='stem': it is for patches of images, and this task has none")
    if config.front_end == "stem" and config.stride > 1:
        raise ValueError(f"front_end='stem', stride={config.stride}: choose the patch instead, and stride=1")
    if config.front_end == "convolution" and spec.features is None:
        raise ValueError("front_end='convolution': it is for frames, and this task has token ids")
    if config.front_end == "convolution" and spec.causal:
        raise ValueError("front_end='convolution': it sees later frames, and this task is causal")


def _zero_padding(x: Tensor, padding: Tensor | None) -> Tensor:
    return x if padding is None else x.masked_fill(padding[..., None], 0.0)
