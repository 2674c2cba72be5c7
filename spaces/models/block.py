"""The pre-norm transformer block: a mechanism, then a feed-forward network, each added to what came in.

Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020. In a decoder that has a source to look at,
cross-attention stands between the two (Vaswani et al., "Attention Is All You Need", 2017, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "swiglu": F.silu}


class FeedForward(nn.Module):
    """Two projections with a nonlinearity between them, on ``(..., width)``.

    Args:
        width: features per token.
        hidden: features between the projections.
        activation: ``gelu``, ``relu`` or ``swiglu``; the last gates the hidden features by a third projection, and to
            have as many weights it has two thirds of them (Shazeer, "GLU Variants Improve Transformer", 2020).
    """

    def __init__(self, *, width: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: it must be {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[activation]
        gated = activation == "swiglu"
        hidden = max(1, round(hidden * 2 / 3)) if gated else hidden
        self.rise = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.fall = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same."""
        hidden = self.activation(self.rise(x)) if self.gate is None else self.activation(self.gate(x)) * self.rise(x)
        output: Tensor = self.fall(hidden)
        return output


class Block(nn.Module):
    """``x + mechanism(norm(x))``, ``x + cross(norm(x), memory)`` if it has one, ``x + feed_forward(norm(x))``.

    Args:
        mechanism: mixes the tokens of ``x``.
        width: features per token.
        feed_forward: hidden features of the feed-forward network as a multiple of ``width``.
        dropout: share of features dropped before each sum in training.
        activation: the feed-forward network's.
        cross: attends to a source, by what it has read of it.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        *,
        width: int,
        feed_forward: float,
        dropout: float,
        activation: str = "gelu",
        cross: Mechanism | None = None,
    ) -> None:
        super().__init__()
        hidden = max(1, round(feed_forward * width))
        self.mechanism = mechanism
        self.mechanism_norm = nn.LayerNorm(width)
        self.cross = cross
        self.cross_norm = nn.LayerNorm(width) if cross is not None else None
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width=width, hidden=hidden, activation=activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor | None, memory: Memory | None = None) -> Tensor:
        """``x`` ``(batch, n, width)``, ``padding`` ``(batch, n)`` bool or None, to ``(batch, n, width)``."""
        x = x + self.dropout(self.mechanism(self.mechanism_norm(x), padding))
        return self._rest(x, memory)

    def step(self, x: Tensor, state: State, memory: Memory | None = None) -> tuple[Tensor, State]:
        """One token ``(batch, width)`` of a causal block to its output and the mechanism's next state."""
        mixed, state = self.mechanism.step(self.mechanism_norm(x), state)
        return self._rest((x + self.dropout(mixed))[:, None], memory)[:, 0], state

    def _rest(self, x: Tensor, memory: Memory | None) -> Tensor:
        if self.cross is not None:
            assert memory is not None, "a block with cross-attention needs a source"
            assert self.cross_norm is not None
            x = x + self.dropout(self.cross.look(self.cross_norm(x), memory))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
