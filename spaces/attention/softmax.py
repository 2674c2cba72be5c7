"""Full softmax attention: every token attends to every other token.

Vaswani et al., "Attention Is All You Need", 2017, section 3.2. With ``kv_heads`` below ``heads`` it is
grouped-query attention (Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models", 2023). O(length^2)
time; the fused kernel needs O(length) memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.attention.kernels.pairs import PairsAttention


class SoftmaxAttention(PairsAttention):
    """The exact attention that other mechanisms approximate.

    Args:
        kv_heads: heads of the keys and values, which groups of ``heads / kv_heads`` query heads share; ``heads`` unless
            given.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
        kept_heads: share of the heads that exist, of the width that ``heads`` of them have; 1 unless given.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
        """The values, weighted by the softmax of the logits."""
        return softmax_attention(q, k, v, padding=padding, causal=causal)


def softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool, scale: float | None = None
) -> Tensor:
    """softmax(scale * q k^T) v over the keys that are not masked; 0 where all keys are masked.

    Args:
        q: ``(batch, heads, m, d)``.
        k: ``(batch, heads, n, d)``, as ``v``; or with fewer heads, each shared by a group of heads of ``q``.
        padding: padding mask of the keys, ``(batch, n)`` bool, or None.
        causal: whether to mask later keys; ``m`` is ``n`` then.
        scale: 1 / sqrt(d) unless given.
    """
    grouped = q.shape[1] != k.shape[1]
    if padding is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=grouped)
    attn_mask = ~padding[:, None, None, :]
    if causal:
        attn_mask = attn_mask & torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale, enable_gqa=grouped)
