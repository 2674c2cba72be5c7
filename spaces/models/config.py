"""The settings that all models share: of the input embedding and of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from spaces.dimensions import check_number, check_whole
from spaces.models.positions import POSITIONS

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "swiglu": F.silu,
}
EMBEDDING_SETTINGS = ("ngrams", "buckets", "stride")  # a space may have them in its section input as well
FRONT_ENDS = ("linear", "convolution", "stem")


@dataclass(frozen=True)
class ModelConfig:
    """Settings of every model. In YAML they are keys of ``model``.

    Args:
        width: features per token (the hidden size).
        feed_forward: hidden size of the feed-forward networks as a multiple of ``width``, of all blocks or by block
            number; 0: there is none. With ``swiglu`` a third less, so that the number of weights is the same.
        dropout: dropout rate after each mechanism and each feed-forward network.
        activation: of the feed-forward network: ``gelu``, ``gelu_tanh`` (its approximation), ``relu`` or ``swiglu``.
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
    feed_forward: float | Mapping[str, float] = 2.0
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
        by_block = self.feed_forward if isinstance(self.feed_forward, Mapping) else {"": self.feed_forward}
        for block, multiple in by_block.items():
            check_number(0, **{f"feed_forward.{block}".rstrip("."): multiple})
        if not self.embedding_std > 0:
            raise ValueError(f"embedding_std={self.embedding_std}: it must be above 0")
        check_whole(1, ngrams=self.ngrams, buckets=self.buckets, stride=self.stride)
        for name, accepted in (("activation", ACTIVATIONS), ("positions", POSITIONS), ("front_end", FRONT_ENDS)):
            if getattr(self, name) not in accepted:
                *others, last = accepted
                listed = f"{', '.join(others)} or {last}" if len(accepted) == 2 else ", ".join(accepted)
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be {listed}")

    def hidden(self, block: int) -> int:
        """The hidden features of a block's feed-forward network.

        Raises:
            ValueError: ``feed_forward`` is by block and lacks this one.
        """
        multiple = self.feed_forward
        if isinstance(multiple, Mapping):
            if str(block) not in multiple:
                raise ValueError(f"feed_forward={dict(multiple)!r}: it must have a key per block, {block} is missing")
            multiple = multiple[str(block)]
        hidden = max(1, round(multiple * self.width)) if multiple else 0
        return max(1, round(hidden * 2 / 3)) if hidden and self.activation == "swiglu" else hidden
