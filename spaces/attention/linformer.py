"""Low-rank attention: keys and values are projected from ``length`` rows to ``rank`` before attention.

Wang et al., "Linformer: Self-Attention with Linear Complexity", 2020, section 4, with three of its ways to share the
projections E and F; its fourth, one projection for all layers, is not a matter of one mechanism. O(length * rank) time;
exact softmax attention once both projections are the identity. It cannot be causal: every projected key mixes all
positions, so no mask can hide the future.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, equal_query_key

Sharing = Literal["none", "headwise", "key-value"]


class LinformerAttention(Mechanism):
    """Attention to ``rank`` learned mixtures of the tokens.

    Args:
        rank: rows that keys and values are projected to, 1..length.
        sharing: who shares projections: ``none``, each head has an E and an F; ``headwise``, the heads share one E and
            one F; ``key-value``, one projection serves the keys and the values of all heads.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        length: int,
        causal: bool = False,
        rank: int,
        sharing: Sharing = "headwise",
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if causal:
            raise ValueError("causal=True: linformer mixes all positions into every key, so it cannot hide the future")
        if not 1 <= rank <= length:
            raise ValueError(f"rank={rank}: with length {length} it must be 1..{length}")
        if sharing not in get_args(Sharing):
            raise ValueError(f"sharing={sharing!r}: it must be one of {', '.join(get_args(Sharing))}")
        self.sharing = sharing
        self.query = nn.Linear(width, width, bias=False)
        # Without a bias the padding, which is 0, stays 0 and adds nothing to the projected rows.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        # Variance 1 / length keeps a projected row at the scale of a token. E for the keys, then F for the values, or
        # one for both.
        sets = {"none": (2, heads), "headwise": (2,), "key-value": (1,)}[sharing]
        self.projections = nn.Parameter(torch.randn(*sets, rank, length) * length**-0.5)
        equal_query_key(self.query, self.key)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention to the projected rows."""
        return self._attend(x, *self.source_memory(x, padding))

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """Its projected keys and values, ``(batch, heads, rank, head_width)``; padding is 0 and needs no mask."""
        projections = self.projections[..., : source.shape[1]]
        if self.sharing == "none":
            e, f = projections
            return e @ self.split(self.key(source)), f @ self.split(self.value(source))
        # E (x W) = (E x) W: the sequence goes first, so that W meets rank rows instead of n.
        projected = torch.bmm(projections.flatten(0, 1).expand(len(source), -1, -1), source)
        rows = projected.chunk(len(projections), dim=1)
        return self.split(self.key(rows[0])), self.split(self.value(rows[-1]))

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """The same, to another sequence's rows."""
        return self._attend(x, *memory.kept)

    def _attend(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = self.split(self.query(x))
        output: Tensor = self.output(self.merge(F.scaled_dot_product_attention(q, k, v)))
        return output
