"""Top-k attention: a token attends only to the ``k`` keys with the largest logits.

Zhao et al., "Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection", 2019. O(length^2) time
and memory: all logits are computed. Exact softmax attention with ``k = length``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.attention import Shape
from spaces.attention.kernels.pairs import PairsAttention, mask_logits


class TopkAttention(PairsAttention):
    """Softmax over the largest logits of each row.

    Args:
        k: keys per query, 1..length; ties with the smallest of them are kept as well.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(self, shape: Shape, *, k: int, rope: bool = False) -> None:
        super().__init__(shape, rope=rope)
        if not 1 <= k <= shape.length:
            raise ValueError(f"k={k}: with length {shape.length} it must be 1..{shape.length}")
        self.k = k

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
        """The values, weighted by the softmax of the k largest logits."""
        logits = mask_logits(q @ k.transpose(-1, -2) * self.head_dim**-0.5, padding, causal=causal)
        if self.k < k.shape[2]:
            least = logits.detach().topk(self.k, sorted=False).values.amin(-1, keepdim=True)
            logits = logits.masked_fill(logits < least, torch.finfo(logits.dtype).min)
        return logits.softmax(-1) @ v
