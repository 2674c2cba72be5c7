"""Block-sparse attention: each block of queries attends to the blocks of keys that a plan lists for it.

A plan is ``(blocks, listed)`` int64: row ``i`` lists the blocks that block ``i`` attends to, without repetition, filled
up with ``ABSENT``. It is made for the longest sequence; blocks beyond the end of a shorter one are masked.
O(length * listed * block_size) time and memory: the listed blocks are gathered, so that one call of the fused kernel
handles all blocks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -1


def count_blocks(length: int, block_size: int) -> int:
    """The number of blocks that hold ``length`` tokens; the last one may be partial."""
    if not 1 <= block_size <= length:
        raise ValueError(f"block_size={block_size}: with length {length} it must be 1..{length}")
    return -(-length // block_size)


def neighbours_plan(blocks: int, *, before: int, after: int) -> Tensor:
    """Each block attends to itself, to ``before`` blocks before it and to ``after`` blocks after it."""
    plan = torch.arange(blocks)[:, None] + torch.arange(-before, after + 1)
    return plan.masked_fill((plan < 0) | (plan >= blocks), ABSENT)


def attend_to_blocks(
    q: Tensor, k: Tensor, v: Tensor, plan: Tensor, *, block_size: int, padding: Tensor | None, causal: bool
) -> Tensor:
    """Softmax attention of each block to the blocks that ``plan`` lists for it; 0 where all keys are masked.

    Args:
        q: ``(batch, n, heads, d)``, as ``k``, ``v`` and the result.
        plan: for at least ``n`` tokens.
        padding: padding mask, ``(batch, n)`` bool, or None.
        causal: whether to mask later keys.
    """
    seen = ~masked_keys(q, plan, block_size=block_size, padding=padding, causal=causal)
    k, v = listed_keys(k, plan, block_size), listed_keys(v, plan, block_size)
    return joined(F.scaled_dot_product_attention(in_blocks(q, block_size), k, v, attn_mask=seen), q)


def in_blocks(x: Tensor, block_size: int) -> Tensor:
    """``(batch, n, heads, d)`` to ``(batch * blocks, heads, block_size, d)``; the last block is zero-padded."""
    return _cut(x, block_size).flatten(0, 1).transpose(1, 2)


def listed_keys(x: Tensor, plan: Tensor, block_size: int) -> Tensor:
    """``(batch, n, heads, d)`` to ``(batch * blocks, heads, listed * block_size, d)``: the keys of each block.

    The keys of absent blocks are arbitrary.
    """
    blocks = _cut(x, block_size)
    listed, _ = _present(plan, blocks.shape[1])
    return (
        blocks.index_select(1, listed.flatten()).unflatten(1, listed.shape).flatten(2, 3).flatten(0, 1).transpose(1, 2)
    )


def masked_keys(x: Tensor, plan: Tensor, *, block_size: int, padding: Tensor | None, causal: bool) -> Tensor:
    """The mask of :func:`listed_keys` for ``x`` ``(batch, n, ...)``, true where a query must not attend.

    Returns:
        ``(batch * blocks, 1, block_size or 1, listed * block_size)`` bool.
    """
    batch, n = x.shape[:2]
    position = torch.arange(n + -n % block_size, device=x.device).view(-1, block_size)
    listed, absent = _present(plan, len(position))
    if padding is None:
        gone = (position >= n)[None]
    else:
        gone = F.pad(padding, (0, position.numel() - n), value=True).unflatten(1, position.shape)
    masked = (gone[:, listed] | absent[..., None]).flatten(2)[:, :, None]
    if causal:
        masked = masked | (position[listed].flatten(1)[:, None] > position[..., None])
    return masked.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]


def joined(blocks: Tensor, x: Tensor) -> Tensor:
    """``(batch * blocks, heads, block_size, d)`` to ``(batch, n, heads, d)``, the shape of ``x``."""
    batch, n = x.shape[:2]
    return blocks.transpose(1, 2).unflatten(0, (batch, -(-n // blocks.shape[2]))).flatten(1, 2)[:, :n]


def overlapping(x: Tensor, size: int, step: int) -> Tensor:
    """``(..., tokens, d)`` to ``(..., slices, size, d)``, a view: a slice from every ``step``-th token on."""
    slices: Tensor = _Overlapping.apply(x, size, step)  # type: ignore[no-untyped-call]
    return slices


class _Overlapping(torch.autograd.Function):
    """``unfold`` with a backward pass that sums whole blocks: several times as fast as PyTorch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, step: int) -> Tensor:
        ctx.tokens, ctx.step = x.shape[-2], step
        return x.unfold(-2, size, step).transpose(-1, -2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,), step = grads, ctx.step
        slices, size = grad.shape[-3:-1]
        blocks = max(slices + -(-size // step) - 1, -(-ctx.tokens // step))
        total = grad.new_zeros(*grad.shape[:-3], blocks, step, grad.shape[-1])
        for number, start in enumerate(range(0, size, step)):
            part = grad[..., start : start + step, :]
            total[..., number : number + slices, : part.shape[-2], :] += part
        return total.flatten(-3, -2)[..., : ctx.tokens, :], None, None


def _cut(x: Tensor, block_size: int) -> Tensor:
    """``(batch, n, heads, d)`` to ``(batch, blocks, block_size, heads, d)``."""
    return F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % block_size)).unflatten(1, (-1, block_size))


def _present(plan: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """The plan of the first ``blocks`` blocks, with absent and out-of-range blocks as 0, and their mask."""
    plan = plan[:blocks]
    absent = (plan == ABSENT) | (plan >= blocks)
    return plan.masked_fill(absent, 0), absent
