"""Block-sparse attention: a block sees its neighbours, some blocks drawn at random and some that all blocks see.

Zaheer et al., "Big Bird: Transformers for Longer Sequences", 2020, section 2, the construction from existing tokens
(ITC); its window of three blocks. The first ``global_blocks`` blocks are the global ones: they see, and are seen by,
every token. The random blocks are drawn once and kept. When causal, a block draws from the blocks before it alone.
O(length * block_size * (3 + random_blocks + 2 * global_blocks)) time and memory; exact softmax attention once every row
of the plan lists every block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, State, equal_query_key
from spaces.attention.kernels.blocks import ABSENT, attend_to_blocks, count_blocks, neighbours_plan
from spaces.attention.kernels.pairs import appended
from spaces.attention.kernels.rotary import rotary
from spaces.attention.softmax import softmax_attention


class BigBirdAttention(Mechanism):
    """Attention to the blocks beside a token's own, to random blocks and to the leading ones.

    Args:
        block_size: tokens a block, 1..length.
        random_blocks: blocks drawn for each block from those it does not see anyway, at most as many as there are
            blocks; where fewer are left, all of them.
        global_blocks: how many leading blocks see every token and are seen by every token.
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
        random_blocks: int = 3,
        global_blocks: int = 2,
        rope: bool = False,
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        blocks = count_blocks(length, block_size)
        for name, value in (("random_blocks", random_blocks), ("global_blocks", global_blocks)):
            if not 0 <= value <= blocks:
                raise ValueError(f"{name}={value}: with {blocks} blocks it must be 0..{blocks}")
        self.block_size, self.global_tokens = block_size, global_blocks * block_size
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.rotary = rotary(rope, width=width, heads=heads, length=length)
        equal_query_key(self.query, self.key)
        self.plan: Tensor
        self.register_buffer("plan", _plan(blocks, random_blocks, global_blocks, causal=causal))

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention by the plan, then the global blocks' rows in its place."""
        projected = self.rotary(self.query(x)), self.rotary(self.key(x)), self.value(x)
        q, k, v = (each.unflatten(-1, (self.heads, self.head_width)) for each in projected)
        mixed = attend_to_blocks(q, k, v, self.plan, block_size=self.block_size, padding=padding, causal=self.causal)
        if self.global_tokens:
            leading = self._attend_globally(q, k, v, padding)
            mixed = torch.cat([leading, mixed[:, self.global_tokens :]], dim=1)
        output: Tensor = self.output(mixed.flatten(2))
        return output

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done: a token's block has no neighbours in another sequence."""
        raise ValueError(
            "bigbird cannot attend to another sequence: its plan pairs blocks by position, and two sequences share none"
        )

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No keys and no values, ``(batch, heads, 0, head_width)``; any may be seen by a block to come."""
        return (self.zeros(batch, self.heads, 0, self.head_width),) * 2

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the blocks listed for its own; for a global block these are all so far."""
        q, k = (self.split(self.rotary(each(x), state.position)) for each in (self.query, self.key))
        v = self.split(self.value(x))
        memory = appended(state.memory, (k, v))
        listed = self.plan[state.position // self.block_size, :, None]
        at = (listed * self.block_size + torch.arange(self.block_size, device=x.device)).flatten()
        seen = (at >= 0) & (at <= state.position)  # what is absent lies before the start
        keys, values = (kept.index_select(2, at.clamp(0, state.position)) for kept in memory)
        return self.output(self.merge(F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[None]))), memory

    def _attend_globally(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
        """The global blocks' rows of full attention: ``(batch, global_tokens, heads, head_width)``."""
        q = q[:, : self.global_tokens]
        seen = q.shape[1] if self.causal else k.shape[1]  # what is before a global token is global too
        q, k, v = q.transpose(1, 2), k[:, :seen].transpose(1, 2), v[:, :seen].transpose(1, 2)
        padding = None if padding is None else padding[:, :seen]
        return softmax_attention(q, k, v, padding=padding, causal=self.causal).transpose(1, 2)


def _plan(blocks: int, random_blocks: int, global_blocks: int, *, causal: bool) -> Tensor:
    """The blocks each block sees: its neighbours, then the global ones, then random ones; ``(blocks, listed)``."""
    row, column = torch.arange(blocks)[:, None], torch.arange(blocks)
    taken = (row - column).abs() <= 1
    if causal:
        taken = taken | (column > row)
    leading = column[:global_blocks].masked_fill(taken[:, :global_blocks], ABSENT)
    taken = taken | (column < global_blocks)
    score, drawn = torch.rand(blocks, blocks).masked_fill(taken, -1.0).topk(random_blocks)
    window = neighbours_plan(blocks, before=1, after=0 if causal else 1)
    return torch.cat([window, leading, drawn.masked_fill(score < 0, ABSENT)], dim=1)
