"""The settings that all models share: of the input embedding and of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from spaces.dimensions import check_whole
from spaces.models.positions import POSITIONS

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "swiglu": F.silu}
EMBEDDING_SETTINGS = ("ngrams", "buckets", "stride")  # a space may have them in its section input as well
FRONT_ENDS = ("linear", "convolution", "stem")


@dataclass(frozen=True)
class ModelConfig:
    """Settings of every model. In YAML they are keys of ``model``.

    Args:
        width: features per token (the hidden size).
        feed_forward: hidden size of the feed-forward network as a multiple of ``width``.
        dropout: dropout rate after each mechanism and each feed-forward network.
        activation: of the feed-forward network: ``gelu``, ``relu`` or ``swiglu``.
        positions: position embeddings: ``learned``, ``sinusoidal`` or ``none``.
        front_end: embedding of frames: ``linear``; ``convolution``, of kernel sizes 5 and 3; or ``stem``, convolutions
            in two dimensions for patches of images.
        ngrams: of token ids: each token has the embeddings of the n-grams of 1 to ``ngrams`` tokens that end at it.
        buckets: into which the n-grams of each length are hashed.
        embedding_std: standard deviation of the initial embeddings of ids. With a small one, ids that are rare in
            training contribute little, which suits large vocabularies.
        stride: tokens or frames that the embedding joins into one position; the mechanisms see that many times fewer.
        embedding_dropout: dropout rate after the embedding.

    Raises:
        ValueError: a value is out of range.
    """

    width: int
    feed_forward: float = 2.0
    dropout: float = 0.0
    activation: str = "gelu"
    positions: str = "learned"
    front_end: str = "linear"
    ngrams: int = 1
    buckets: int = 4096
    embedding_std: float = 1.0
    stride: int = 1
    embedding_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dropout", "embedding_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: it must be at least 0 and below 1")
        if self.feed_forward <= 0:
            raise ValueError(f"feed_forward={self.feed_forward}: it must be above 0")
        if not self.embedding_std > 0:
            raise ValueError(f"embedding_std={self.embedding_std}: it must be above 0")
        check_whole(1, ngrams=self.ngrams, buckets=self.buckets, stride=self.stride)
        for name, accepted in (("activation", ACTIVATIONS), ("positions", POSITIONS), ("front_end", FRONT_ENDS)):
            if getattr(self, name) not in accepted:
                *others, last = accepted
                listed = f"{', '.join(others)} or {last}" if len(accepted) == 2 else ", ".join(accepted)
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be {listed}")
