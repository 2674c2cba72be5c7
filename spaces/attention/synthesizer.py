"""Attention whose weights are not made by comparing tokens: made from one token alone, or learned as they are.

Tay et al., "Synthesizer: Rethinking Self-Attention for Transformer Models", 2020, section 3. O(length^2) time in every
mode, but without a projection for queries and keys. ``random`` holds heads * length^2 parameters.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, State
from spaces.attention.softmax import appended, softmax_attention

Mode = Literal["dense", "random", "factorised"]
PAPERS_RANK = 8


class SynthesizerAttention(Mechanism):
    """A softmax over logits that belong to positions.

    Args:
        mode: where the logits of a token come from: ``dense``, a small network of that token; ``random``, a table
            that starts at random and is trained; ``factorised``, such a table of low rank. The output bias of the
            paper's dense network is left out: with it there would be no fused kernel.
        rank: of the factorised table, 1..length; unless given the paper's 8, or ``length`` if that is less. The other
            modes refuse it.
    """

    def __init__(
        self, *, width: int, heads: int, length: int, causal: bool = False, mode: Mode, rank: int | None = None
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if mode not in get_args(Mode):
            raise ValueError(f"mode={mode!r}: it must be one of {', '.join(get_args(Mode))}")
        if rank is not None and mode != "factorised":
            raise ValueError(f"rank={rank}: mode={mode!r} has none; only mode='factorised' takes it")
        if rank is not None and not 1 <= rank <= length:
            raise ValueError(f"rank={rank}: with length {length} it must be 1..{length}")
        self.mode = mode
        # Small logits: at the start all tokens weigh much the same.
        if mode == "dense":
            self.hidden = nn.Linear(width, width)
            self.positions = nn.Parameter(torch.randn(heads, length, self.head_width) * self.head_width**-0.5)
        elif mode == "random":
            self.table = nn.Parameter(torch.randn(heads, length, length) * length**-0.5)
        else:
            rank = min(PAPERS_RANK, length) if rank is None else rank
            self.factors = nn.Parameter(torch.randn(2, heads, length, rank) * (rank * length) ** -0.25)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Weigh the values by position."""
        n, v = x.shape[1], self.split(self.value(x))
        if self.mode == "random":
            mixed = _weighed_by_table(self.table[:, :n, :n], v, padding=padding, causal=self.causal)
        else:
            # Logits that are a product of two matrices are attention with those as queries and keys.
            if self.mode == "dense":
                q, k = self.split(F.relu(self.hidden(x))), self.positions[:, :n].expand(len(x), -1, -1, -1)
            else:
                q, k = (factor[:, :n].expand(len(x), -1, -1, -1) for factor in self.factors)
            d = max(q.shape[-1], self.head_width)  # the fused kernel wants all of one width
            q, k, v = _widened(q, d), _widened(k, d), _widened(v, d)
            mixed = softmax_attention(q, k, v, padding=padding, causal=self.causal, scale=1.0)[..., : self.head_width]
        output: Tensor = self.output(self.merge(mixed))
        return output

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No values, ``(batch, heads, 0, head_width)``."""
        return (self.zeros(batch, self.heads, 0, self.head_width),)

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Weigh the values kept and its own by this position's logits."""
        at, seen = state.position, state.position + 1
        (values,) = appended(state.memory, (self.split(self.value(x)),))
        if self.mode == "dense":
            logits = self.split(F.relu(self.hidden(x))) @ self.positions[:, :seen].mT
        elif self.mode == "random":
            logits = self.table[:, at:seen, :seen]
        else:
            logits = self.factors[0, :, at:seen] @ self.factors[1, :, :seen].mT
        return self.output(self.merge(logits.softmax(-1) @ values)), (values,)


def _widened(x: Tensor, d: int) -> Tensor:
    """``(..., d)`` with zeros for the features that ``x`` lacks."""
    return x if x.shape[-1] == d else F.pad(x, (0, d - x.shape[-1]))


def _weighed_by_table(table: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
    """softmax(table) v for ``table`` ``(heads, n, n)`` and ``v`` ``(batch, heads, n, d)``, which is 0 at padding.

    The weights are the same in every sample: one softmax and one product a head serve the whole batch.
    """
    n = table.shape[-1]
    if causal:
        table = table.masked_fill(table.new_ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    weights = table.softmax(-1)
    mixed = torch.bmm(weights, v.permute(1, 2, 0, 3).flatten(2)).unflatten(2, v.shape[::3]).permute(2, 0, 1, 3)
    if padding is None:
        return mixed
    kept = (weights @ (~padding).T.to(weights.dtype)).permute(2, 0, 1)[..., None]  # (batch, heads, n, 1)
    return mixed / kept.masked_fill(kept == 0, 1.0)
