"""A small pre-norm transformer over tokens, with one label a token or one a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.models.block import Block
from spaces.models.embedding import embedding
from spaces.tasks import Sizes


class TokenShift(nn.Module):
    """A depthwise convolution over three neighbouring tokens, added to its input; causal if asked.

    With it one layer can store a value beside its key, so that recall needs one attention layer instead of two (the
    short convolution of Fu et al., "Hungry Hungry Hippos", 2023, and of Arora et al., "Zoology", 2023).
    """

    def __init__(self, *, width: int, causal: bool) -> None:
        super().__init__()
        convolution = nn.Conv1d(width, width, kernel_size=3, groups=width)
        self.taps = nn.Parameter(convolution.weight.detach()[:, 0].T.contiguous())
        self.bias = nn.Parameter(torch.zeros(width))
        self.pads = (2, 0) if causal else (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n, width)`` to the same; zeros stand beyond both ends."""
        # Three sums instead of a convolution: half the time, at the sizes of a search a fifth of a network's.
        n, padded = x.shape[1], F.pad(x, (0, 0, *self.pads))
        shifted = torch.addcmul(x + self.bias, padded[:, :n], self.taps[0])
        shifted = torch.addcmul(shifted, padded[:, 1 : n + 1], self.taps[1])
        return torch.addcmul(shifted, padded[:, 2:], self.taps[2])


class Encoder(nn.Module):
    """Embeddings, a token shift, one block a mechanism, and a head.

    Args:
        mechanisms: one a block, first block first.
        sizes: the task's.
        width: features per token.
        feed_forward: hidden features of the feed-forward network as a multiple of ``width``.
        dropout: share of features dropped after each mechanism and feed-forward network in training.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        *,
        sizes: Sizes,
        width: int,
        feed_forward: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}: it must be at least 0 and below 1")
        if feed_forward <= 0:
            raise ValueError(f"feed_forward={feed_forward}: it must be above 0")
        self.per_token = sizes.per_token
        self.tokens = embedding(sizes, width)
        # 0.2 rather than the usual 0.02: local patterns are then learned within seconds.
        self.positions = nn.Parameter(torch.randn(sizes.length, width) * 0.2)
        self.shift = TokenShift(width=width, causal=sizes.causal)
        self.blocks = nn.ModuleList(
            Block(mechanism, width=width, feed_forward=feed_forward, dropout=dropout) for mechanism in mechanisms
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sizes.classes)

    def forward(self, inputs: Tensor, padding: Tensor | None = None) -> Tensor:
        """Logits for token ids ``(batch, n)`` or frames ``(batch, n, features)``.

        They are ``(batch, n, classes)`` where the task is judged per token, else ``(batch, classes)``.
        """
        x = self.tokens(inputs) + self.positions[: inputs.shape[1]]
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)  # the token shift must not see padding
        x = self.shift(x)
        for block in self.blocks:
            x = block(x, padding)
        x = self.norm(x)
        if not self.per_token:
            x = _mean_over_tokens(x, padding)
        logits: Tensor = self.head(x)
        return logits


def _mean_over_tokens(x: Tensor, padding: Tensor | None) -> Tensor:
    """``(batch, n, width)`` to ``(batch, width)``, padding left out; 0 where all is padding."""
    if padding is None:
        return x.mean(1)
    kept = ~padding[..., None]
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)
