"""Attention within blocks of tokens and, if asked, to the neighbouring blocks.

Liu et al., "Generating Wikipedia by Summarizing Long Sequences", 2018, section 4.2.4, with ``neighbours=0``; with
neighbours, the blocks before and after as in Child et al., "Sparse Transformers", 2019. O(length * block_size *
(1 + neighbours)) time and memory; exact softmax attention once one block, with its neighbours, holds everything.
"""

from __future__ import annotations

from torch import Tensor, nn

from spaces.attention import Mechanism, State, equal_query_key
from spaces.attention.kernels.blocks import attend_to_blocks, count_blocks, neighbours_plan
from spaces.attention.kernels.pairs import appended
from spaces.attention.kernels.rotary import rotary
from spaces.attention.softmax import softmax_attention


class LocalAttention(Mechanism):
    """Attention of a block to itself and to its neighbours.

    Args:
        block_size: tokens a block, 1..length.
        neighbours: further blocks seen on either side (when causal: on the left), below the number of blocks.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        length: int,
        causal: bool = False,
        block_size: int,
        neighbours: int = 0,
        rope: bool = False,
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        blocks = count_blocks(length, block_size)
        if not 0 <= neighbours < blocks:
            raise ValueError(f"neighbours={neighbours}: with {blocks} blocks it must be 0..{blocks - 1}")
        self.block_size = block_size
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.rotary = rotary(rope, width=width, heads=heads, length=length)
        equal_query_key(self.query, self.key)
        plan = neighbours_plan(blocks, before=neighbours, after=0 if causal else neighbours)
        self.plan: Tensor
        self.register_buffer("plan", plan, persistent=False)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention of each block to the blocks around it."""
        projected = self.rotary(self.query(x)), self.rotary(self.key(x)), self.value(x)
        q, k, v = (each.unflatten(-1, (self.heads, self.head_width)) for each in projected)
        mixed = attend_to_blocks(q, k, v, self.plan, block_size=self.block_size, padding=padding, causal=self.causal)
        output: Tensor = self.output(mixed.flatten(2))
        return output

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done: a token's block has no neighbours in another sequence."""
        raise ValueError(
            "local cannot attend to another sequence: its blocks pair tokens by position, and two sequences share none"
        )

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No keys and no values, ``(batch, heads, 0, head_width)``."""
        return (self.zeros(batch, self.heads, 0, self.head_width),) * 2

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to what is there of its block and to the blocks seen before it; nothing earlier is kept."""
        q, k = (self.split(self.rotary(each(x), state.position)) for each in (self.query, self.key))
        v = self.split(self.value(x))
        seen = state.position % self.block_size + 1 + (self.plan.shape[1] - 1) * self.block_size
        keys, values = (kept[:, :, -seen:] for kept in appended(state.memory, (k, v)))
        return self.output(self.merge(softmax_attention(q, keys, values, padding=None, causal=False))), (keys, values)
