"""Top-k attention: a token attends to the ``k`` keys that fit its query best and to no other.

Zhao et al., "Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection", 2019. O(length^2) time
and memory: all logits are made to choose from. Exact softmax attention once ``k`` is ``length``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State, equal_query_key
from spaces.attention.pairs import hide
from spaces.attention.rotary import refuse_across, rotary
from spaces.attention.softmax import appended


class TopkAttention(Mechanism):
    """Softmax over the largest logits of a row.

    Args:
        k: how many keys keep a weight, 1..length; with them those whose logits equal the smallest of them.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.rotary`.
    """

    def __init__(
        self, *, width: int, heads: int, length: int, causal: bool = False, k: int, rope: bool = False
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if not 1 <= k <= length:
            raise ValueError(f"k={k}: with length {length} it must be 1..{length}")
        self.k = k
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.rotary = rotary(rope, width=width, heads=heads, length=length)
        equal_query_key(self.query, self.key)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention to the best keys that are not hidden."""
        return self._attend(x, *self._keys_and_values(x), padding=padding, causal=self.causal)

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """Its keys and values, ``(batch, heads, n, head_width)``."""
        refuse_across(self.rotary)
        return self._keys_and_values(source)

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """The same, to the keys of another sequence."""
        return self._attend(x, *memory.kept, padding=memory.padding, causal=False)

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No keys and no values, ``(batch, heads, 0, head_width)``."""
        return (self.zeros(batch, self.heads, 0, self.head_width),) * 2

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the best of the keys kept and its own."""
        memory = appended(state.memory, self._keys_and_values(x, state.position))
        return self._attend(x, *memory, padding=None, causal=False, start=state.position), memory

    def _keys_and_values(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        return self.split(self.rotary(self.key(x), start)), self.split(self.value(x))

    def _attend(
        self, x: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool, start: int = 0
    ) -> Tensor:
        q = self.split(self.rotary(self.query(x), start))
        logits = hide(q @ k.transpose(-1, -2) * self.head_width**-0.5, padding, causal=causal)
        if self.k < k.shape[2]:
            least = logits.detach().topk(self.k, sorted=False).values.amin(-1, keepdim=True)
            logits = logits.masked_fill(logits < least, torch.finfo(logits.dtype).min)
        return self.output(self.merge(logits.softmax(-1) @ v))
