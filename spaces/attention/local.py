"""Attention within blocks of tokens and, optionally, to neighbouring blocks.

Liu et al., "Generating Wikipedia by Summarizing Long Sequences", 2018, section 4.2.4, with ``neighbours=0``; with
neighbours, the blocks before and after as in Child et al., "Sparse Transformers", 2019. O(length * block_size *
(1 + neighbours)) time and memory; exact softmax attention once a block and its neighbours hold all tokens.
"""

from __future__ import annotations

from torch import Tensor

from spaces.attention import DecodeCache, Shape
from spaces.attention.kernels.blocks import attend_to_blocks, count_blocks, neighbours_plan
from spaces.attention.kernels.kv_cache import KVCacheMechanism
from spaces.attention.softmax import softmax_attention


class LocalAttention(KVCacheMechanism):
    """Attention of each block to itself and to its neighbours.

    Args:
        block_size: tokens per block, 1..length.
        neighbours: blocks attended to on either side (when causal: on the left), below the number of blocks.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
    """

    no_cross_attention = (
        "local cannot attend to another sequence: its blocks pair tokens by position, and two sequences share none"
    )

    def __init__(
        self,
        shape: Shape,
        *,
        block_size: int,
        neighbours: int = 0,
        rope: bool = False,
    ) -> None:
        super().__init__(shape, rope=rope)
        blocks = count_blocks(shape.length, block_size)
        if not 0 <= neighbours < blocks:
            raise ValueError(f"neighbours={neighbours}: with {blocks} blocks it must be 0..{blocks - 1}")
        self.block_size = block_size
        plan = neighbours_plan(blocks, before=neighbours, after=0 if shape.causal else neighbours)
        self.plan: Tensor
        self.register_buffer("plan", plan, persistent=False)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention of each block to itself and its neighbours."""
        projected = self.rotary(self.query(x)), self.rotary(self.key(x)), self.value(x)
        q, k, v = (each.unflatten(-1, (self.heads, self.head_dim)) for each in projected)
        mixed = attend_to_blocks(q, k, v, self.plan, block_size=self.block_size, padding=padding, causal=self.causal)
        output: Tensor = self.output(mixed.flatten(2))
        return output

    def kept_tokens(self, n: int) -> int:
        """The tokens so far of the last token's block, and the neighbours before."""
        return (n - 1) % self.block_size + 1 + (self.plan.shape[1] - 1) * self.block_size

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the tokens so far of its block and to the neighbours before."""
        q, tensors = self.queries(x, cache.position), self.with_token(x, cache)
        return self.output(self.merge_heads(softmax_attention(q, *tensors, padding=None, causal=False))), tensors
