"""The pre-norm transformer block: a mechanism, then a feed-forward network, each with a residual connection.

Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020. In a decoder with a source,
cross-attention comes between the two (Vaswani et al., "Attention Is All You Need", 2017, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import DecodeCache, Mechanism, SourceCache
from spaces.models.positions import POSITIONS

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "swiglu": F.silu}


@dataclass(frozen=True)
class BlockConfig:
    """The settings that all models share. In YAML they are keys of ``model``.

    Args:
        width: features per token (the hidden size).
        feed_forward: hidden size of the feed-forward network as a multiple of ``width``.
        dropout: dropout rate after each mechanism and each feed-forward network.
        activation: of the feed-forward network: ``gelu``, ``relu`` or ``swiglu``.
        positions: position embeddings: ``learned``, ``sinusoidal`` or ``none``.

    Raises:
        ValueError: a value is out of range.
    """

    width: int
    feed_forward: float = 2.0
    dropout: float = 0.0
    activation: str = "gelu"
    positions: str = "learned"

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout}: it must be at least 0 and below 1")
        if self.feed_forward <= 0:
            raise ValueError(f"feed_forward={self.feed_forward}: it must be above 0")
        for name, accepted in (("activation", ACTIVATIONS), ("positions", POSITIONS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be {', '.join(accepted)}")


class FeedForward(nn.Module):
    """Two projections with a nonlinearity between them, on ``(..., width)``.

    With ``swiglu`` a third projection gates the hidden features, whose number is reduced by a third so that the number
    of weights stays the same (Shazeer, "GLU Variants Improve Transformer", 2020).
    """

    def __init__(self, config: BlockConfig) -> None:
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

    def __init__(self, mechanism: Mechanism, config: BlockConfig, *, cross_mechanism: Mechanism | None = None) -> None:
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
