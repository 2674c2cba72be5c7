"""Low-rank attention: keys and values are projected from ``length`` rows to ``rank`` before attention.

Wang et al., "Linformer: Self-Attention with Linear Complexity", 2020, section 4, with three of its ways to share the
projections E and F (the fourth shares one projection between layers). O(length * rank) time; exact softmax attention
if both projections are the identity. It cannot be causal: every projected key mixes all positions, so no mask can hide
later ones.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Shape, SourceCache
from spaces.attention.projections import QKVMechanism

Sharing = Literal["none", "headwise", "key-value"]


class LinformerAttention(QKVMechanism):
    """Attention to ``rank`` projected keys and values.

    Args:
        rank: length of the projected keys and values (the paper's k), 1..length.
        sharing: how projections are shared: ``none``, an E and an F per head; ``headwise``, one E and one F for all
            heads; ``key-value``, one projection E = F for all heads.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        rank: int,
        sharing: Sharing = "headwise",
    ) -> None:
        super().__init__(shape)
        length = shape.length
        if shape.causal:
            raise ValueError("causal=True: linformer mixes all positions into every key, so it cannot hide the future")
        if not 1 <= rank <= length:
            raise ValueError(f"rank={rank}: with length {length} it must be 1..{length}")
        if sharing not in get_args(Sharing):
            raise ValueError(f"sharing={sharing!r}: it must be one of {', '.join(get_args(Sharing))}")
        self.sharing = sharing
        # E for the keys and F for the values, or one for both; variance 1 / length keeps the scale of a token.
        sets = {"none": (2, shape.heads), "headwise": (2,), "key-value": (1,)}[sharing]
        self.projections = nn.Parameter(torch.randn(*sets, rank, length) * length**-0.5)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention to the projected keys and values."""
        return self._attend(x, *self.source_tensors(x, padding))

    def source_tensors(self, source: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The projected keys and values, ``(batch, heads, rank, head_dim)``."""
        projections = self.projections[..., : source.shape[1]]
        if self.sharing == "none":
            e, f = projections
            k, v = self.split_heads(self.key(source)), self.split_heads(self.value(source))
            return e @ self.zero_padding(k, padding), f @ self.zero_padding(v, padding)
        # E (x W) = (E x) W: with the sequence projected first, W is applied to rank rows instead of n. Padding is 0.
        joined = projections.flatten(0, 1)
        rows = torch.bmm(joined.expand(source.shape[0], -1, -1), source).chunk(len(projections), dim=1)
        k, v = self.key(rows[0]), self.value(rows[-1])
        if self.key.bias is not None:  # E (x W + 1 b) = (E x) W + (E 1) b, but each row has got b once
            real = source.new_ones(source.shape[:2]) if padding is None else (~padding).to(source.dtype)
            sums = (real @ joined.mT - 1)[..., None].chunk(len(projections), dim=1)
            k, v = k + sums[0] * self.key.bias, v + sums[-1] * self.value.bias
        return self.split_heads(k), self.split_heads(v)

    def mix_source(self, x: Tensor, cache: SourceCache) -> Tensor:
        """Attention to the projected keys and values of the source."""
        return self._attend(x, *cache.tensors)

    def _attend(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = self.split_heads(self.query(x))
        output: Tensor = self.output(self.merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return output
