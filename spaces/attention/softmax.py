"""Full softmax attention: every token attends to every other.

Vaswani et al., "Attention Is All You Need", 2017, section 3.2. O(length^2) time; the fused kernel needs O(length)
memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, equal_query_key


class SoftmaxAttention(Mechanism):
    """The mechanism that the others approximate; it has no knobs of its own."""

    def __init__(self, *, width: int, heads: int, length: int, causal: bool = False) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        equal_query_key(self.query, self.key)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Softmax attention over all tokens that are not padding."""
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        if padding is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._seen(padding))
        output: Tensor = self.output(self.merge(mixed))
        return output

    def _seen(self, padding: Tensor) -> Tensor:
        """What each token may attend to: ``(batch, 1, 1 or n, n)``."""
        real = ~padding[:, None, None, :]
        n = padding.shape[1]
        return real & torch.ones(n, n, dtype=torch.bool, device=padding.device).tril() if self.causal else real
