"""Every token to every other: what mechanisms share that compare each query with each key."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State, equal_query_key
from spaces.attention.kernels.rotary import refuse_across, rotary


class PairsAttention(Mechanism):
    """Projections, positions, decoding and cross-attention; what becomes of queries and keys is :meth:`attend`.

    Args:
        kv_heads: heads of the keys and values, a divisor of ``heads``; every ``heads / kv_heads`` neighbouring heads
            look at one of them. None: each head has its own.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(
        self, *, width: int, heads: int, length: int, causal: bool, rope: bool, kv_heads: int | None = None
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        self.kv_heads = heads if kv_heads is None else kv_heads
        if self.kv_heads < 1 or heads % self.kv_heads:
            raise ValueError(f"kv_heads={kv_heads}: it must divide heads={heads}")
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, self.kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(width, self.kv_heads * self.head_width, bias=False)
        self.output = nn.Linear(width, width)
        self.rotary = rotary(rope, width=width, heads=heads, length=length)
        equal_query_key(self.query, self.key, head_width=self.head_width)

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
        """What the queries ``(batch, heads, m, head_width)`` get of the values.

        Args:
            q: the queries.
            k: the keys, ``(batch, kv_heads, n, head_width)``, as ``v``.
            v: the values.
            padding: of the keys, ``(batch, n)`` bool or None.
            causal: whether later keys are hidden; ``m`` is ``n`` then.
        """

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention to all tokens that are not padding."""
        return self._to(x, *self._keys_and_values(x), padding=padding, causal=self.causal)

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """Its keys and values, ``(batch, kv_heads, n, head_width)``."""
        refuse_across(self.rotary)
        return self._keys_and_values(source)

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """The same, to the keys of another sequence."""
        return self._to(x, *memory.kept, padding=memory.padding, causal=False)

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No keys and no values, ``(batch, kv_heads, 0, head_width)``."""
        return (self.zeros(batch, self.kv_heads, 0, self.head_width),) * 2

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the keys kept and to its own."""
        memory = appended(state.memory, self._keys_and_values(x, state.position))
        return self._to(x, *memory, padding=None, causal=False, start=state.position), memory

    def _keys_and_values(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        return self.split(self.rotary(self.key(x), start)), self.split(self.value(x))

    def _to(self, x: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool, start: int = 0) -> Tensor:
        q = self.split(self.rotary(self.query(x), start))
        output: Tensor = self.output(self.merge(self.attend(q, k, v, padding=padding, causal=causal)))
        return output


def appended(kept: tuple[Tensor, ...], tokens: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each of ``tokens`` ``(batch, heads, 1, d)`` behind those kept, ``(batch, heads, any number, d)``."""
    return tuple(torch.cat(pair, dim=2) for pair in zip(kept, tokens, strict=True))


def hide(logits: Tensor, padding: Tensor | None, *, causal: bool) -> Tensor:
    """``logits`` ``(batch or 1, heads, m, n)`` with the lowest finite number where a token must not look.

    Finite, so that a row without anything to see, as a padded token's may be, stays finite: it weighs all keys alike.
    ``m`` is ``n`` if ``causal``.
    """
    n = logits.shape[-1]
    hidden = torch.zeros(1, 1, 1, n, dtype=torch.bool, device=logits.device)
    if padding is not None:
        hidden = padding[:, None, None]
    if causal:
        hidden = hidden | torch.ones(n, n, dtype=torch.bool, device=logits.device).triu(1)
    return logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
