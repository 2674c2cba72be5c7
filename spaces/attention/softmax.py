"""Full softmax attention: every token attends to every other.

Vaswani et al., "Attention Is All You Need", 2017, section 3.2. Heads may share keys and values in groups (Ainslie et
al., "GQA: Training Generalized Multi-Query Transformer Models", 2023). O(length^2) time; the fused kernel needs
O(length) memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State, equal_query_key
from spaces.attention.rotary import refuse_across, rotary


class SoftmaxAttention(Mechanism):
    """The mechanism that the others approximate.

    Args:
        kv_heads: heads of the keys and values, a divisor of ``heads``; every ``heads / kv_heads`` neighbouring heads
            look at one of them. Unless given, each head has its own.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.rotary`.
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
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        kv_heads = heads if kv_heads is None else kv_heads
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"kv_heads={kv_heads}: it must divide heads={heads}")
        self.kv_heads = kv_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.output = nn.Linear(width, width)
        self.rotary = rotary(rope, width=width, heads=heads, length=length)
        equal_query_key(self.query, self.key, head_width=self.head_width)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Softmax attention to all tokens that are not padding."""
        return self._attend(x, *self._keys_and_values(x), padding=padding, causal=self.causal)

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """Its keys and values, ``(batch, kv_heads, n, head_width)``."""
        refuse_across(self.rotary)
        return self._keys_and_values(source)

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """The same, to the keys of another sequence."""
        return self._attend(x, *memory.kept, padding=memory.padding, causal=False)

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No keys and no values, ``(batch, kv_heads, 0, head_width)``."""
        return (self.zeros(batch, self.kv_heads, 0, self.head_width),) * 2

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the keys kept and to its own."""
        memory = appended(state.memory, self._keys_and_values(x, state.position))
        return self._attend(x, *memory, padding=None, causal=False, start=state.position), memory

    def _keys_and_values(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        return self.split(self.rotary(self.key(x), start)), self.split(self.value(x))

    def _attend(
        self, x: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool, start: int = 0
    ) -> Tensor:
        q = self.split(self.rotary(self.query(x), start))
        output: Tensor = self.output(self.merge(softmax_attention(q, k, v, padding=padding, causal=causal)))
        return output


def appended(kept: tuple[Tensor, ...], tokens: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each of ``tokens`` ``(batch, heads, 1, d)`` behind those kept, ``(batch, heads, any number, d)``."""
    return tuple(torch.cat(pair, dim=2) for pair in zip(kept, tokens, strict=True))


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
