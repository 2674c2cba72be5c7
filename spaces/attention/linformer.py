"""Low-rank attention: keys and values are projected from ``length`` rows to ``rank`` before attention.

Wang et al., "Linformer: Self-Attention with Linear Complexity", 2020, section 4; the two projections E and F are shared
by the heads of a layer. O(length * rank) time; exact softmax attention once both projections are the identity.
It cannot be causal: every projected key mixes all positions, so no mask can hide the future.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, equal_query_key


class LinformerAttention(Mechanism):
    """Attention to ``rank`` learned mixtures of the tokens.

    Args:
        rank: rows that keys and values are projected to, 1..length.
    """

    def __init__(self, *, width: int, heads: int, length: int, causal: bool = False, rank: int) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if causal:
            raise ValueError("causal=True: linformer mixes all positions into every key, so it cannot hide the future")
        if not 1 <= rank <= length:
            raise ValueError(f"rank={rank}: with length {length} it must be 1..{length}")
        self.query = nn.Linear(width, width, bias=False)
        # Without a bias the padding, which is 0, stays 0 and adds nothing to the projected rows.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        # Variance 1 / length keeps a projected row at the scale of a token. E for the keys, then F for the values.
        self.projections = nn.Parameter(torch.randn(2, rank, length) * length**-0.5)
        equal_query_key(self.query, self.key)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention to the projected rows; the padding in ``x`` is 0 already and needs no mask."""
        # E (x W) = (E x) W: the sequence goes first, so that W meets rank rows instead of n.
        projections = self.projections.flatten(0, 1)[:, : x.shape[1]].expand(len(x), -1, -1)
        for_keys, for_values = torch.bmm(projections, x).chunk(2, dim=1)
        q, k, v = (
            self.split(self.query(x)),
            self.split(self.key(for_keys)),
            self.split(self.value(for_values)),
        )
        output: Tensor = self.output(self.merge(F.scaled_dot_product_attention(q, k, v)))
        return output
