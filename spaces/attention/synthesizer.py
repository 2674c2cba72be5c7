"""Attention whose weights are not made by comparing tokens: made from one token alone, or learned as they are.

Tay et al., "Synthesizer: Rethinking Self-Attention for Transformer Models", 2020, section 3. O(length^2) time in every
mode, but without a projection for queries and keys. ``random`` holds heads * length^2 parameters. ``random``,
``factorised_dense`` and mixtures with one of them hold all weights at once, O(length^2) memory; the logits of the other
modes, and of mixtures of these, are products of narrow matrices, with which a fused kernel spares that. ``factorised``
by itself is spared it by taking some rows of weights at a time, which then serve the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, State, equal_query_key
from spaces.attention.kernels.pairs import appended, hide
from spaces.attention.softmax import softmax_attention

MODES = ("dense", "random", "factorised", "factorised_dense", "dot")
PAPERS_RANK = 8
SLAB = 1 << 20  # weights held at a time; measured, more are hardly faster


class SynthesizerAttention(Mechanism):
    """A softmax over logits that belong to positions.

    Args:
        mode: where the logits of a token come from. ``dense``, a small network of that token; ``factorised_dense``, two
            such networks, each with about sqrt(length) outputs, multiplied each with each; ``random``, a table that
            starts at random and is trained; ``factorised``, such a table of low rank; ``dot``, the products of queries
            and keys. Several, joined by ``+``, are summed in shares that are learned. The output bias of the paper's
            dense networks is left out: with it there would be no fused kernel.
        rank: of the factorised table, 1..length; unless given the paper's 8, or ``length`` if that is less. The other
            modes refuse it.
    """

    def __init__(
        self, *, width: int, heads: int, length: int, causal: bool = False, mode: str, rank: int | None = None
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        self.parts = mode.split("+")
        if not set(self.parts) <= set(MODES):
            raise ValueError(f"mode={mode!r}: it must be one of {', '.join(MODES)}, or several joined by +")
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"mode={mode!r}: nothing may stand in it twice")
        if rank is not None and "factorised" not in self.parts:
            raise ValueError(f"rank={rank}: mode={mode!r} has none; only factorised takes it")
        if rank is not None and not 1 <= rank <= length:
            raise ValueError(f"rank={rank}: with length {length} it must be 1..{length}")
        # Small logits: at the start all tokens weigh much the same.
        if "dense" in self.parts:
            self.hidden = nn.Linear(width, width)
            self.positions = nn.Parameter(torch.randn(heads, length, self.head_width) * self.head_width**-0.5)
        if "random" in self.parts:
            self.table = nn.Parameter(torch.randn(heads, length, length) * length**-0.5)
        if "factorised" in self.parts:
            rank = min(PAPERS_RANK, length) if rank is None else rank
            self.factors = nn.Parameter(torch.randn(2, heads, length, rank) * (rank * length) ** -0.25)
        if "factorised_dense" in self.parts:
            self.columns = math.isqrt(length - 1) + 1
            tiles = self.columns + -(-length // self.columns)
            self.tile_hidden = nn.Linear(width, width)
            self.tiles = nn.Parameter(torch.randn(heads, tiles, self.head_width) * self.head_width**-0.5)
        if "dot" in self.parts:
            self.query = nn.Linear(width, width, bias=False)
            self.key = nn.Linear(width, width, bias=False)
            equal_query_key(self.query, self.key)
        if len(self.parts) > 1:
            self.shares = nn.Parameter(torch.zeros(len(self.parts)))  # before their softmax
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Weigh the values by position."""
        n, v = x.shape[1], self.split(self.value(x))
        if self.parts == ["random"]:
            mixed = _weighed_by_table(self.table[:, :n, :n], v, padding=padding, causal=self.causal)
        elif self.parts == ["factorised"] and padding is None:
            mixed = _weighed_by_factors(self.factors[0, :, :n], self.factors[1, :, :n], v, causal=self.causal)
        elif not {"random", "factorised_dense"} & set(self.parts):
            # Logits that are a product of two matrices are attention with those as queries and keys.
            q, k = self._queries_and_keys(x, self._dot_keys(x))
            d = max(q.shape[-1], self.head_width)  # the fused kernel wants all of one width
            q, k, v = _widened(q, d), _widened(k, d), _widened(v, d)
            mixed = softmax_attention(q, k, v, padding=padding, causal=self.causal, scale=1.0)[..., : self.head_width]
        else:
            mixed = hide(self._logits(x, self._dot_keys(x)), padding, causal=self.causal).softmax(-1) @ v
        output: Tensor = self.output(self.merge(mixed))
        return output

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done, except by the part ``dot``, and that is softmax attention."""
        raise ValueError(
            "synthesizer cannot attend to another sequence: its weights do not look at the tokens they weigh"
        )

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No values and, for ``dot``, no keys, ``(batch, heads, 0, head_width)``."""
        return (self.zeros(batch, self.heads, 0, self.head_width),) * (2 if "dot" in self.parts else 1)

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Weigh the values kept and its own by the row of logits at its position."""
        values, *keys = memory = appended(state.memory, (self.split(self.value(x)), *self._dot_keys(x)))
        weights = self._logits(x, keys, start=state.position).softmax(-1)
        return self.output(self.merge(weights @ values)), memory

    def _dot_keys(self, x: Tensor) -> tuple[Tensor, ...]:
        """Keys for ``dot``, ``(batch, heads, n, head_width)``; none where that is no part."""
        return (self.split(self.key(x)),) if "dot" in self.parts else ()

    def _shares(self) -> dict[str, Tensor | float]:
        """By which the logits of each part are multiplied."""
        if len(self.parts) == 1:
            return {self.parts[0]: 1.0}
        return dict(zip(self.parts, self.shares.softmax(0), strict=True))

    def _logits(self, x: Tensor, dot_keys: Sequence[Tensor], start: int = 0) -> Tensor:
        """Of all parts, in their shares: ``(batch or 1, heads, m, start + m)`` for ``m`` tokens from ``start`` on."""
        end, shares, logits = start + x.shape[1], self._shares(), []
        if "random" in shares:
            logits.append(shares["random"] * self.table[None, :, start:end, :end])
        if "factorised_dense" in shares:
            tiles = self.split(F.relu(self.tile_hidden(x))) @ self.tiles.transpose(-1, -2)
            column, row = tiles[..., : self.columns], shares["factorised_dense"] * tiles[..., self.columns :]
            logits.append((row[..., :, None] * column[..., None, :]).flatten(-2)[..., :end])
        if {"dense", "factorised", "dot"} & set(self.parts):
            q, k = self._queries_and_keys(x, dot_keys, start)
            logits.append(q @ k.transpose(-1, -2))
        return sum(logits[1:], start=logits[0])

    def _queries_and_keys(self, x: Tensor, dot_keys: Sequence[Tensor], start: int = 0) -> tuple[Tensor, Tensor]:
        """Two matrices whose product is the logits of the parts that have such.

        Returns:
            ``(batch, heads, m, d)`` and ``(batch, heads, start + m, d)``.
        """
        end, shares = start + x.shape[1], self._shares()
        queries, keys = [], list(dot_keys)
        if "dot" in shares:
            queries.append(shares["dot"] * self.head_width**-0.5 * self.split(self.query(x)))
        if "dense" in shares:
            queries.append(shares["dense"] * self.split(F.relu(self.hidden(x))))
            keys.append(self.positions[:, :end].expand(len(x), -1, -1, -1))
        if "factorised" in shares:
            queries.append((shares["factorised"] * self.factors[0, :, start:end]).expand(len(x), -1, -1, -1))
            keys.append(self.factors[1, :, :end].expand(len(x), -1, -1, -1))
        return _side_by_side(queries), _side_by_side(keys)


def _side_by_side(features: list[Tensor]) -> Tensor:
    """The features of several parts as those of one."""
    return features[0] if len(features) == 1 else torch.cat(features, dim=-1)


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
    mixed = _apart(torch.bmm(weights, _abreast(v)), v)
    if padding is None:
        return mixed
    kept = (weights @ (~padding).T.to(weights.dtype)).permute(2, 0, 1)[..., None]  # (batch, heads, n, 1)
    return mixed / kept.masked_fill(kept == 0, 1.0)


def _weighed_by_factors(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """softmax(q k^T) v for ``q`` and ``k`` ``(heads, n, rank)`` and ``v`` ``(batch, heads, n, d)``."""
    values = _abreast(v)
    mixed: Tensor = _Factorised.apply(q.to(v.dtype), k.to(v.dtype), values, causal)  # type: ignore[no-untyped-call]
    return _apart(mixed, v)


def _abreast(v: Tensor) -> Tensor:
    """``(batch, heads, n, d)`` to ``(heads, n, batch * d)``: the samples as features of one."""
    return v.permute(1, 2, 0, 3).flatten(2)


def _apart(mixed: Tensor, v: Tensor) -> Tensor:
    """``(heads, n, batch * d)`` to ``(batch, heads, n, d)``, with the sizes of ``v``."""
    return mixed.unflatten(2, v.shape[::3]).permute(2, 0, 1, 3)


class _Factorised(torch.autograd.Function):
    """softmax(q k^T) v in slabs of rows, whose weights are made once more for the gradients."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        ctx.causal = causal
        slabs = [weights @ v[:, : weights.shape[2]] for _, weights in _slabs(q, k, causal=causal)]
        out = torch.cat(slabs, dim=1)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (q, k, v, out) = grads, ctx.saved_tensors
        mean = (grad * out).sum(-1, keepdim=True)
        by_q, by_k, by_v = [], torch.zeros_like(k), torch.zeros_like(v)
        for rows, weights in _slabs(q, k, causal=ctx.causal):
            seen = slice(weights.shape[2])
            by_v[:, seen].baddbmm_(weights.mT, grad[:, rows])
            by_logits = (grad[:, rows] @ v[:, seen].mT).sub_(mean[:, rows]).mul_(weights)
            by_q.append(by_logits @ k[:, seen])
            by_k[:, seen].baddbmm_(by_logits.mT, q[:, rows])
        return torch.cat(by_q, dim=1), by_k, by_v, None


def _slabs(q: Tensor, k: Tensor, *, causal: bool) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, with the weights ``(heads, rows, keys)`` of all keys that one of them sees."""
    heads, n, _ = q.shape
    most = max(1, SLAB // (heads * n))
    if causal:  # in short slabs there are few weights of later keys, which are worked out in vain
        most = min(most, -(-n // 8))
    for start in range(0, n, most):
        rows = slice(start, min(start + most, n))
        logits = q[:, rows] @ k[:, : rows.stop if causal else n].mT
        if causal:
            later = torch.ones(logits.shape[1:], dtype=torch.bool, device=q.device).triu(start + 1)
            logits.masked_fill_(later, -torch.inf)
        yield rows, logits.softmax(-1)
