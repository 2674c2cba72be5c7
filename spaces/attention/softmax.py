"""Full softmax attention: every token attends to every other.

Vaswani et al., "Attention Is All You Need", 2017, section 3.2. Heads may share keys and values in groups (Ainslie et
al., "GQA: Training Generalized Multi-Query Transformer Models", 2023). O(length^2) time; the fused kernel needs
O(length) memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.attention.kernels.pairs import PairsAttention


class SoftmaxAttention(PairsAttention):
    """The mechanism that the others approximate.

    Args:
        kv_heads: heads of the keys and values, a divisor of ``heads``; every ``heads / kv_heads`` neighbouring heads
            look at one of them. Unless given, each head has its own.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        length: int,
        causal: bool = False,
        kv_heads: int | None = None,
        rope: bool = False,
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal, kv_heads=kv_heads, rope=rope)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
        """The mean of the values, weighed by the softmax of the logits."""
        return softmax_attention(q, k, v, padding=padding, causal=causal)


def softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool, scale: float | None = None
) -> Tensor:
    """softmax(scale * q k^T) v over the keys that are neither padding nor, if ``causal``, later; 0 where none is left.

    Args:
        q: ``(batch, heads, m, d)``.
        k: ``(batch, heads, n, d)``, as ``v``; or with fewer heads, each for a group of heads of ``q``.
        padding: ``(batch, n)`` bool, true at padding.
        scale: 1 / sqrt(d) unless given.
    """
    grouped = q.shape[1] != k.shape[1]
    if padding is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=grouped)
    seen = ~padding[:, None, None, :]
    if causal:
        seen = seen & torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=grouped)
