"""Top-k attention: a token attends to the ``k`` keys that fit its query best and to no other.

Zhao et al., "Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection", 2019. O(length^2) time
and memory: all logits are made to choose from. Exact softmax attention once ``k`` is ``length``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.attention.kernels.pairs import PairsAttention, hide


class TopkAttention(PairsAttention):
    """Softmax over the largest logits of a row.

    Args:
        k: how many keys keep a weight, 1..length; with them those whose logits equal the smallest of them.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(
        self, *, width: int, heads: int, length: int, causal: bool = False, k: int, rope: bool = False
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal, rope=rope)
        if not 1 <= k <= length:
            raise ValueError(f"k={k}: with length {length} it must be 1..{length}")
        self.k = k

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
        """The mean of the values, weighed by the softmax of the best logits."""
        logits = hide(q @ k.transpose(-1, -2) * self.head_width**-0.5, padding, causal=causal)
        if self.k < k.shape[2]:
            least = logits.detach().topk(self.k, sorted=False).values.amin(-1, keepdim=True)
            logits = logits.masked_fill(logits < least, torch.finfo(logits.dtype).min)
        return logits.softmax(-1) @ v
