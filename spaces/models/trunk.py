"""What all models share: positions, a token shift, one block a mechanism, and a last norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State
from spaces.models.block import Block
from spaces.models.positions import positions as positions_of


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
        return self.over(F.pad(x, (0, 0, *self.pads)), x)

    def over(self, padded: Tensor, x: Tensor) -> Tensor:
        """The tokens ``x`` ``(batch, n, width)`` within ``padded`` ``(batch, n + 2, width)``, their neighbourhood."""
        # Three sums instead of a convolution: half the time, at the sizes of a search a fifth of a network's.
        n = x.shape[1]
        shifted = torch.addcmul(x + self.bias, padded[:, :n], self.taps[0])
        shifted = torch.addcmul(shifted, padded[:, 1 : n + 1], self.taps[1])
        return torch.addcmul(shifted, padded[:, 2:], self.taps[2])


class Past(NamedTuple):
    """What a causal trunk has kept of the tokens so far."""

    position: int  # of the next token, from 0
    last: Tensor  # the two tokens before it, (batch, 2, width), as the shift sees them
    states: tuple[State, ...]  # one a block


class Trunk(nn.Module):
    """Embedded tokens ``(batch, n, width)`` in, features of that shape out.

    Args:
        mechanisms: one a block, first block first.
        width: features per token.
        length: the longest sequence.
        causal: whether output t may depend on tokens 0..t alone; so must the mechanisms then.
        feed_forward: hidden features of the feed-forward network as a multiple of ``width``.
        dropout: share of features dropped after each mechanism and feed-forward network in training.
        activation: ``gelu``, ``relu`` or ``swiglu``.
        positions: ``learned``, ``sinusoidal`` or ``none``.
        crosses: one a block where blocks look at a source.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        *,
        width: int,
        length: int,
        causal: bool,
        feed_forward: float,
        dropout: float,
        activation: str,
        positions: str,
        crosses: Sequence[Mechanism | None] = (),
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}: it must be at least 0 and below 1")
        if feed_forward <= 0:
            raise ValueError(f"feed_forward={feed_forward}: it must be above 0")
        self.positions = positions_of(positions, length=length, width=width)
        self.shift = TokenShift(width=width, causal=causal)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(
                mechanism,
                width=width,
                feed_forward=feed_forward,
                dropout=dropout,
                activation=activation,
                cross=cross,
            )
            for mechanism, cross in zip(mechanisms, crosses or [None] * len(mechanisms), strict=True)
        )
        self.norm = nn.LayerNorm(width)

    def read(self, source: Tensor, padding: Tensor | None) -> tuple[Memory, ...]:
        """What each block's cross-attention keeps of ``source``, ``(batch, n, width)``."""
        return tuple(block.cross.read(source, padding) for block in self.blocks if block.cross is not None)

    def forward(self, x: Tensor, padding: Tensor | None, memories: Sequence[Memory] = ()) -> Tensor:
        """``padding`` is ``(batch, n)`` bool or None, ``memories`` what :meth:`read` gave, where there is a source."""
        x = self.positions(x)
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)  # the token shift must not see padding
        x = self.shift(x)
        for block, memory in self._with(memories):
            x = block(x, padding, memory)
        output: Tensor = self.norm(x)
        return output

    def begin(self, batch: int) -> Past:
        """What there is before the first token of ``batch`` sequences; see :meth:`Mechanism.begin`."""
        states = tuple(block.mechanism.begin(batch) for block in self.blocks)
        return Past(0, self.shift.bias.new_zeros(batch, 2, len(self.shift.bias)), states)

    def step(self, x: Tensor, past: Past, memories: Sequence[Memory] = ()) -> tuple[Tensor, Past]:
        """One embedded token ``(batch, width)`` to its features, as :meth:`forward` gives them, and the next past."""
        x = self.positions(x[:, None], past.position)
        padded = torch.cat([past.last, x], dim=1)
        x = self.shift.over(padded, x)[:, 0]
        states = []
        for (block, memory), state in zip(self._with(memories), past.states, strict=True):
            x, state = block.step(x, state, memory)
            states.append(state)
        return self.norm(x), Past(past.position + 1, padded[:, 1:], tuple(states))

    def _with(self, memories: Sequence[Memory]) -> Iterator[tuple[Block, Memory | None]]:
        """The blocks, each with its memory, if there are any."""
        known: Sequence[Memory | None] = memories or [None] * len(self.blocks)
        return zip(self.blocks, known, strict=True)
