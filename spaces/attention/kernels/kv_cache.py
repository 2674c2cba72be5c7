"""The base class of mechanisms that keep keys and values of earlier tokens to decode the next one."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.attention import DecodeCache, Shape
from spaces.attention.kernels.rotary import rotary
from spaces.attention.projections import QKVMechanism


class KVCacheMechanism(QKVMechanism):
    """Projections with rotary positions, and a cache of the keys and values of the latest :meth:`kept_tokens`.

    Args:
        shape: the sizes, and whether it is causal.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
        kv_heads: heads of the keys and values, which groups of ``heads / kv_heads`` query heads share; ``heads`` unless
            given.
        kept_heads: share of the heads that exist.
    """

    def __init__(
        self, shape: Shape, *, rope: bool = False, kv_heads: int | None = None, kept_heads: float = 1.0
    ) -> None:
        super().__init__(shape, kv_heads=kv_heads, kept_heads=kept_heads)
        self.rotary = rotary(shape.head_dim, shape.length, enabled=rope)

    def kept_tokens(self, n: int) -> int:
        """How many of ``n`` tokens are kept, at least 1: of all, unless a subclass drops those that it has passed."""
        return n

    def queries(self, x: Tensor, start: int = 0) -> Tensor:
        """``(batch, heads, n, head_dim)`` of tokens ``(batch, n, width)`` from position ``start`` on."""
        return self.split_heads(self.rotary(self.query(x), start))

    def keys_and_values(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """``(batch, kv_heads, n, head_dim)`` each, of tokens ``(batch, n, width)`` from position ``start`` on."""
        return self.split_heads(self.rotary(self.key(x), start)), self.split_heads(self.value(x))

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """Empty keys and values, ``(batch, kv_heads, 0, head_dim)``."""
        return (self.new_zeros(batch, self.kv_heads, 0, self.head_dim),) * 2

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of ``mix``; the keys and values that are kept."""
        start = x.shape[1] - min(x.shape[1], self.kept_tokens(x.shape[1]))
        return self.mix(x, None), self.keys_and_values(x[:, start:], start)

    def with_token(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, Tensor]:
        """The cached keys and values with those of a token ``(batch, 1, width)`` appended, without those dropped."""
        kept = self.kept_tokens(cache.position + 1)
        keys, values = appended(cache.tensors, self.keys_and_values(x, cache.position))
        return keys[:, :, -kept:], values[:, :, -kept:]


def appended(cached: tuple[Tensor, ...], token: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A KV cache ``(batch, heads, n, d)`` with the keys and values ``(batch, heads, 1, d)`` of a token appended."""
    return tuple(torch.cat(pair, dim=2) for pair in zip(cached, token, strict=True))
