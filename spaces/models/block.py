"""The pre-norm transformer block: a mechanism, then a feed-forward network, each with a residual connection.

Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020. In a decoder with a source,
cross-attention comes between the two (Vaswani et al., "Attention Is All You Need", 2017, section 3.1).
"""

from __future__ import annotations

from torch import Tensor, nn

from spaces.attention import DecodeCache, Mechanism, SourceCache
from spaces.models.config import ACTIVATIONS, ModelConfig


class FeedForward(nn.Module):
    """Two projections with a nonlinearity between them, on ``(..., width)``.

    With ``swiglu`` a third projection gates the hidden features, whose number is reduced by a third so that the number
    of weights stays the same (Shazeer, "GLU Variants Improve Transformer", 2020).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        gated = config.activation == "swiglu"
        hidden = max(1, round(config.feed_forward * config.width))
        hidden = max(1, round(hidden * 2 / 3)) if gated else hidden
        self.up_proj = nn.Linear(config.width, hidden)
        self.gate_proj = nn.Linear(config.width, hidden) if gated else None
        self.down_proj = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same shape."""
        up = self.up_proj(x)
        hidden = self.activation(up) if self.gate_proj is None else self.activation(self.gate_proj(x)) * up
        output: Tensor = self.down_proj(hidden)
        return output


class Block(nn.Module):
    """``x + mechanism(norm(x))``, then ``x + cross_attention(norm(x))`` if any, then ``x + feed_forward(norm(x))``.

    Args:
        mechanism: mixes the tokens of ``x``.
        config: the settings.
        cross_mechanism: attends to a source.
    """

    def __init__(self, mechanism: Mechanism, config: ModelConfig, *, cross_mechanism: Mechanism | None = None) -> None:
        super().__init__()
        self.mechanism = mechanism
        self.mechanism_norm = nn.LayerNorm(config.width)
        self.cross_mechanism = cross_mechanism
        self.cross_norm = nn.LayerNorm(config.width) if cross_mechanism is not None else None
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, padding: Tensor | None, source: SourceCache | None = None) -> Tensor:
        """``x`` ``(batch, n, width)``, ``padding`` ``(batch, n)`` bool or None, to ``(batch, n, width)``."""
        x = x + self.dropout(self.mechanism(self.mechanism_norm(x), padding))
        return self._after_mechanism(x, source)

    def decode_step(
        self, x: Tensor, cache: DecodeCache, source: SourceCache | None = None
    ) -> tuple[Tensor, DecodeCache]:
        """One token ``(batch, width)`` of a causal block to its output and the mechanism's next cache."""
        mixed, cache = self.mechanism.decode_step(self.mechanism_norm(x), cache)
        return self._after_mechanism((x + self.dropout(mixed))[:, None], source)[:, 0], cache

    def _after_mechanism(self, x: Tensor, source: SourceCache | None) -> Tensor:
        if self.cross_mechanism is not None:
            assert source is not None, "a block with cross-attention needs a source"
            assert self.cross_norm is not None
            x = x + self.dropout(self.cross_mechanism.cross_attend(self.cross_norm(x), source))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
