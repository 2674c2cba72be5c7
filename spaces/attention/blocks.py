"""Attention between blocks of tokens: a block of queries sees the blocks of keys that a plan lists for it.

A plan is ``(blocks, listed)`` whole numbers: row ``i`` lists the blocks that block ``i`` sees, none of them twice;
``ABSENT`` fills a row. It is made for the longest sequence; what it lists beyond the end of a shorter one is hidden.
O(length * listed * block_size) time and memory: the listed blocks are copied to stand next to each other, so that one
call of the fused kernel serves all blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -1


def count_blocks(length: int, block_size: int) -> int:
    """How many blocks ``length`` tokens fill, the last one perhaps in part."""
    if not 1 <= block_size <= length:
        raise ValueError(f"block_size={block_size}: with length {length} it must be 1..{length}")
    return -(-length // block_size)


def neighbours_plan(blocks: int, *, before: int, after: int) -> Tensor:
    """Each block sees itself, ``before`` blocks before it and ``after`` blocks after it."""
    plan = torch.arange(blocks)[:, None] + torch.arange(-before, after + 1)
    return plan.masked_fill((plan < 0) | (plan >= blocks), ABSENT)


def attend_to_blocks(
    q: Tensor, k: Tensor, v: Tensor, plan: Tensor, *, block_size: int, padding: Tensor | None, causal: bool
) -> Tensor:
    """Softmax attention of each block to the blocks that ``plan`` lists for it, 0 where a query sees nothing.

    Args:
        q: ``(batch, n, heads, d)``, as ``k``, ``v`` and the result.
        plan: ``(blocks, listed)`` for at least ``n`` tokens.
        padding: ``(batch, n)`` bool, true at padding, which is seen by no query; as is, if ``causal``, what is later.
    """
    batch, n = q.shape[:2]
    plan = plan[: -(-n // block_size)]
    hidden = hidden_keys(plan, n, block_size=block_size, padding=padding, causal=causal)
    seen = ~hidden.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]
    q, k, v = in_blocks(q, block_size), listed_blocks(k, plan, block_size), listed_blocks(v, plan, block_size)
    # Blocks as samples: (batch * blocks, heads, tokens, d), of which all but the listing are views.
    q, k, v = (each.flatten(0, 1).transpose(1, 2) for each in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)
    return mixed.unflatten(0, (batch, len(plan))).flatten(1, 2)[:, :n]


def in_blocks(x: Tensor, block_size: int) -> Tensor:
    """``(batch, n, heads, d)`` to ``(batch, blocks, block_size, heads, d)``, the last block filled up with 0."""
    return F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % block_size)).unflatten(1, (-1, block_size))


def listed_blocks(x: Tensor, plan: Tensor, block_size: int) -> Tensor:
    """``(batch, n, heads, d)`` to ``(batch, blocks, listed * block_size, heads, d)``: what each block sees.

    Anything may stand for a block that is absent.
    """
    listed = in_blocks(x, block_size).index_select(1, _present(plan)[0].flatten())
    return listed.unflatten(1, plan.shape).flatten(2, 3)


def hidden_keys(plan: Tensor, n: int, *, block_size: int, padding: Tensor | None, causal: bool) -> Tensor:
    """Which of the listed keys a query must not see: ``(batch or 1, blocks, block_size or 1, listed * block_size)``."""
    listed, absent = _present(plan)
    position = torch.arange(plan.shape[0] * block_size, device=plan.device).view(-1, block_size)
    if padding is None:
        gone = (position >= n)[None]
    else:
        gone = F.pad(padding, (0, position.numel() - n), value=True).unflatten(1, position.shape)
    hidden = (gone[:, listed] | absent[..., None]).flatten(2)[:, :, None]
    if causal:
        hidden = hidden | (position[listed].flatten(1)[:, None] > position[..., None])
    return hidden


def _present(plan: Tensor) -> tuple[Tensor, Tensor]:
    """The plan with block 0 for what is absent or beyond the end, and where that is."""
    absent = (plan == ABSENT) | (plan >= len(plan))
    return plan.masked_fill(absent, 0), absent
