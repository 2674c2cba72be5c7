"""The transformer block: a mechanism, then a feed-forward network, each with a residual connection and a norm.

The norm comes before each of the two (Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020), or
after the residual connection, as in Vaswani et al., "Attention Is All You Need", 2017. In a decoder with a source,
cross-attention comes between the two (section 3.1 there).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spaces.attention import DecodeCache, Mechanism, SourceCache
from spaces.models.config import ACTIVATIONS


class NoAttention(Mechanism):
    """No attention: a block has neither the sub-block nor, where norms come first, its norm."""

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Zeros."""
        return torch.zeros_like(x), ()

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Zeros."""
        return torch.zeros_like(x), ()


class FeedForward(nn.Module):
    """Two projections with a nonlinearity between them, on ``(..., width)``.

    With ``swiglu`` a third projection gates the hidden features (Shazeer, "GLU Variants Improve Transformer", 2020).
    """

    def __init__(self, width: int, hidden: int, activation: str, *, bias: bool = True) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.up_proj = nn.Linear(width, hidden, bias=bias)
        self.gate_proj = nn.Linear(width, hidden, bias=bias) if activation == "swiglu" else None
        self.down_proj = nn.Linear(hidden, width, bias=bias)

    @property
    def hidden(self) -> int:
        """The number of hidden features."""
        return self.up_proj.out_features

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same shape."""
        output: Tensor = self.down_proj(self.features(x))
        return output

    def features(self, x: Tensor) -> Tensor:
        """The hidden features, ``(..., hidden)``."""
        up = self.up_proj(x)
        return self.activation(up) if self.gate_proj is None else self.activation(self.gate_proj(x)) * up


class Block(nn.Module):
    """``x + mechanism(norm(x))``, then ``x + cross_attention(norm(x))`` if any, then ``x + feed_forward(norm(x))``.

    Without ``norm_first`` it is ``norm(x + mechanism(x))``, then ``norm(x + feed_forward(x))``. A block without
    attention and feed-forward network does nothing.

    Args:
        mechanism: mixes the tokens of ``x``.
        feed_forward: None if there is none.
        norm: makes the norm of a sub-block.
        dropout: dropout rate after both.
        norm_first: whether norms come before the sub-blocks.
        cross_mechanism: attends to a source; norms come first then.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        feed_forward: FeedForward | None,
        *,
        norm: Callable[[], nn.Module],
        dropout: float = 0.0,
        norm_first: bool = True,
        cross_mechanism: Mechanism | None = None,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.has_attention = not isinstance(mechanism, NoAttention)
        either = self.has_attention or feed_forward is not None
        needed = (self.has_attention, feed_forward is not None) if norm_first else (either, either)
        self.mechanism = mechanism
        self.mechanism_norm = norm() if needed[0] else None
        self.cross_mechanism = cross_mechanism
        self.cross_norm = norm() if cross_mechanism is not None else None
        self.feed_forward_norm = norm() if needed[1] else None
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor | None, source: SourceCache | None = None) -> Tensor:
        """``x`` ``(batch, n, width)``, ``padding`` ``(batch, n)`` bool or None, to ``(batch, n, width)``."""
        return self._after_mechanism(self.after_mechanism(x, padding), source)

    def mechanism_input(self, x: Tensor) -> Tensor:
        """What the mechanism gets of the block's input ``x``."""
        return x if self.mechanism_norm is None or not self.norm_first else self.mechanism_norm(x)

    def after_mechanism(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The first sub-block."""
        if self.has_attention:
            x = x + self.dropout(self.mechanism(self.mechanism_input(x), padding))
        return x if self.mechanism_norm is None or self.norm_first else self.mechanism_norm(x)

    def feed_forward_input(self, x: Tensor) -> Tensor:
        """What the feed-forward network gets of ``x``, which is after the mechanism."""
        return x if self.feed_forward_norm is None or not self.norm_first else self.feed_forward_norm(x)

    def decode_step(
        self, x: Tensor, cache: DecodeCache, source: SourceCache | None = None
    ) -> tuple[Tensor, DecodeCache]:
        """One token ``(batch, width)`` of a causal block, with norms first, to its output and the next cache."""
        mixed, cache = self.mechanism.decode_step(self.mechanism_input(x), cache)
        return self._after_mechanism((x + self.dropout(mixed))[:, None], source)[:, 0], cache

    def prefill(self, x: Tensor, source: SourceCache | None = None) -> tuple[Tensor, DecodeCache]:
        """The first tokens ``(batch, n, width)`` of a causal block, with norms first, and the cache after them."""
        mixed, cache = self.mechanism.prefill(self.mechanism_input(x))
        return self._after_mechanism(x + self.dropout(mixed), source), cache

    def _after_mechanism(self, x: Tensor, source: SourceCache | None) -> Tensor:
        if self.cross_mechanism is not None:
            assert source is not None, "a block with cross-attention needs a source"
            assert self.cross_norm is not None
            x = x + self.dropout(self.cross_mechanism.cross_attend(self.cross_norm(x), source))
        if self.feed_forward is not None:
            x = x + self.dropout(self.feed_forward(self.feed_forward_input(x)))
        return x if self.feed_forward_norm is None or self.norm_first else self.feed_forward_norm(x)
