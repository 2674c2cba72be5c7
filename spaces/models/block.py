"""The pre-norm transformer block: a mechanism, then a feed-forward network, each added to what came in.

Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020.
"""

from __future__ import annotations

from torch import Tensor, nn

from spaces.attention import Mechanism


class Block(nn.Module):
    """``x + mechanism(norm(x))``, then ``x + feed_forward(norm(x))``, on ``(batch, n, width)``."""

    def __init__(self, mechanism: Mechanism, *, width: int, feed_forward: float, dropout: float) -> None:
        super().__init__()
        hidden = max(1, round(feed_forward * width))
        self.mechanism = mechanism
        self.mechanism_norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """``x`` ``(batch, n, width)``, ``padding`` ``(batch, n)`` bool or None, to ``(batch, n, width)``."""
        x = x + self.dropout(self.mechanism(self.mechanism_norm(x), padding))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
