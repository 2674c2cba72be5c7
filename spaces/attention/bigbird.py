"""Block-sparse attention: each block attends to its neighbours, to random blocks and to global blocks.

Zaheer et al., "Big Bird: Transformers for Longer Sequences", 2020, section 2, the construction from existing tokens
(ITC), with a window of three blocks. The first ``global_blocks`` blocks are global: they attend to, and are attended to
by, every token. Random blocks are drawn once, at construction. When causal, a block draws from earlier blocks only.
O(length * block_size * (3 + random_blocks + 2 * global_blocks)) time and memory; exact softmax attention once every row
of the block plan lists every block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.attention import DecodeCache, Shape
from spaces.attention.kernels.blocks import ABSENT, attend_to_blocks, count_blocks, neighbours_plan
from spaces.attention.kernels.kv_cache import KVCacheMechanism
from spaces.attention.softmax import softmax_attention


class BigBirdAttention(KVCacheMechanism):
    """Attention to neighbouring, random and global blocks.

    Args:
        block_size: tokens per block, 1..length.
        random_blocks: random blocks per block, drawn from those that are neither neighbours nor global, 0..number of
            blocks; where fewer are left, all of them.
        global_blocks: how many leading blocks are global, 0..number of blocks.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
    """

    no_cross_attention = (
        "bigbird cannot attend to another sequence: its plan pairs blocks by position, and two sequences share none"
    )

    def __init__(
        self,
        shape: Shape,
        *,
        block_size: int,
        random_blocks: int = 3,
        global_blocks: int = 2,
        rope: bool = False,
    ) -> None:
        super().__init__(shape, rope=rope)
        blocks = count_blocks(shape.length, block_size)
        for name, value in (("random_blocks", random_blocks), ("global_blocks", global_blocks)):
            if not 0 <= value <= blocks:
                raise ValueError(f"{name}={value}: with {blocks} blocks it must be 0..{blocks}")
        self.block_size, self.global_tokens = block_size, global_blocks * block_size
        self.plan: Tensor
        self.register_buffer("plan", _plan(blocks, random_blocks, global_blocks, causal=shape.causal))

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Block-sparse attention for all tokens; the rows of global tokens are then replaced by full attention."""
        projected = self.rotary(self.query(x)), self.rotary(self.key(x)), self.value(x)
        q, k, v = (each.unflatten(-1, (self.heads, self.head_dim)) for each in projected)
        mixed = attend_to_blocks(q, k, v, self.plan, block_size=self.block_size, padding=padding, causal=self.causal)
        if self.global_tokens:
            leading = self._attend_globally(q, k, v, padding)
            mixed = torch.cat([leading, mixed[:, self.global_tokens :]], dim=1)
        output: Tensor = self.output(mixed.flatten(2))
        return output

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the blocks that the plan lists for the token's block; for a global block, to all tokens so far.

        All keys and values are kept, as later blocks may attend to any.
        """
        q, tensors = self.queries(x, cache.position), self.with_token(x, cache)
        listed = self.plan[cache.position // self.block_size, :, None]
        at = (listed * self.block_size + torch.arange(self.block_size, device=x.device)).flatten()
        seen = (at >= 0) & (at <= cache.position)  # absent blocks have negative positions
        keys, values = (cached.index_select(2, at.clamp(0, cache.position)) for cached in tensors)
        return self.output(
            self.merge_heads(F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[None]))
        ), tensors

    def _attend_globally(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
        """Full attention of the global tokens: ``(batch, global_tokens, heads, head_dim)``."""
        q = q[:, : self.global_tokens]
        seen = q.shape[1] if self.causal else k.shape[1]  # all tokens before a global one are global
        q, k, v = q.transpose(1, 2), k[:, :seen].transpose(1, 2), v[:, :seen].transpose(1, 2)
        padding = None if padding is None else padding[:, :seen]
        return softmax_attention(q, k, v, padding=padding, causal=self.causal).transpose(1, 2)


def _plan(blocks: int, random_blocks: int, global_blocks: int, *, causal: bool) -> Tensor:
    """The blocks each block attends to: neighbours, then global, then random ones; ``(blocks, listed)``."""
    row, column = torch.arange(blocks)[:, None], torch.arange(blocks)
    taken = (row - column).abs() <= 1
    if causal:
        taken = taken | (column > row)
    leading = column[:global_blocks].masked_fill(taken[:, :global_blocks], ABSENT)
    taken = taken | (column < global_blocks)
    score, drawn = torch.rand(blocks, blocks).masked_fill(taken, -1.0).topk(random_blocks)
    window = neighbours_plan(blocks, before=1, after=0 if causal else 1)
    return torch.cat([window, leading, drawn.masked_fill(score < 0, ABSENT)], dim=1)
