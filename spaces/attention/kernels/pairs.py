"""The base class of mechanisms that compute a logit for every pair of query and key."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from spaces.attention import DecodeCache, SourceCache
from spaces.attention.kernels.kv_cache import KVCacheMechanism
from spaces.attention.kernels.rotary import refuse_cross_attention


class PairsAttention(KVCacheMechanism):
    """Projections, rotary positions, decoding and cross-attention around :meth:`attend`, which a subclass implements.

    The arguments are those of :class:`~spaces.attention.kernels.kv_cache.KVCacheMechanism`.
    """

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
        """Attention of the queries to the keys, ``(batch, heads, m, head_dim)``.

        Args:
            q: queries, ``(batch, heads, m, head_dim)``.
            k: keys, ``(batch, kv_heads, n, head_dim)``.
            v: values, as the keys.
            padding: padding mask of the keys, ``(batch, n)`` bool, or None.
            causal: whether to mask later keys; ``m`` is ``n`` then.
        """

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention to all tokens that are not padding."""
        return self._attend(x, *self.keys_and_values(x), padding=padding, causal=self.causal)

    def source_tensors(self, source: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """The keys and values of the source, ``(batch, kv_heads, n, head_dim)``."""
        refuse_cross_attention(self.rotary)
        return self.keys_and_values(source)

    def mix_source(self, x: Tensor, cache: SourceCache) -> Tensor:
        """Attention to all tokens of the source that are not padding."""
        return self._attend(x, *cache.tensors, padding=cache.padding, causal=False)

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attention to all tokens; their keys and values."""
        tensors = self.keys_and_values(x)
        return self._attend(x, *tensors, padding=None, causal=True), tensors

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the cached tokens and to itself."""
        tensors = self.with_token(x, cache)
        return self._attend(x, *tensors, padding=None, causal=False, start=cache.position), tensors

    def _attend(
        self, x: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool, start: int = 0
    ) -> Tensor:
        q = self.queries(x, start)
        output: Tensor = self.output(self.merge_heads(self.attend(q, k, v, padding=padding, causal=causal)))
        return output


def mask_logits(logits: Tensor, padding: Tensor | None, *, causal: bool) -> Tensor:
    """``logits`` ``(batch or 1, heads, m, n)`` with masked keys set to the lowest finite number.

    Finite, so that the softmax of a fully masked row, such as that of a padded token, is uniform rather than NaN.
    ``m`` is ``n`` if ``causal``.
    """
    n = logits.shape[-1]
    masked = torch.zeros(1, 1, 1, n, dtype=torch.bool, device=logits.device)
    if padding is not None:
        masked = padding[:, None, None]
    if causal:
        masked = masked | torch.ones(n, n, dtype=torch.bool, device=logits.device).triu(1)
    return logits.masked_fill(masked, torch.finfo(logits.dtype).min)
