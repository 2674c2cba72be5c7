"""Synthesized attention: weights computed from each token alone, or learned directly, without query-key products.

Tay et al., "Synthesizer: Rethinking Self-Attention for Transformer Models", 2020, section 3. O(length^2) time in every
mode, but without query and key projections. ``random`` has heads * length^2 parameters. ``random``,
``factorised_dense`` and mixtures with one of them store all weights, O(length^2) memory; the logits of the other modes,
and of mixtures of these, are products of low-rank matrices, so the fused kernel of softmax attention applies, O(length)
memory. ``factorised`` alone computes its weights, which the batch shares, in slabs of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import DecodeCache, Mechanism, Shape
from spaces.attention.kernels.kv_cache import appended
from spaces.attention.kernels.pairs import mask_logits
from spaces.attention.projections import init_key_from_query
from spaces.attention.softmax import softmax_attention

MODES = ("dense", "random", "factorised", "factorised_dense", "dot")
PAPERS_RANK = 8
SLAB = 1 << 20  # weights per slab; larger slabs are hardly faster (measured)


class SynthesizerAttention(Mechanism):
    """Softmax over synthesized logits.

    Args:
        mode: how the logits of a token are computed. ``dense``, by an MLP from the token; ``factorised_dense``, as the
            outer product of two such MLPs, each with about sqrt(length) outputs; ``random``, a randomly initialised,
            trainable table; ``factorised``, such a table of low rank; ``dot``, query-key products. Several, joined by
            ``+``, are mixed with learned weights. The MLPs lack the paper's output bias, which the fused kernel cannot
            handle.
        rank: rank of the ``factorised`` table, 1..length; min(8, length) unless given, as in the paper. Other modes
            refuse it.
    """

    no_cross_attention = "synthesizer cannot attend to another sequence: its weights do not depend on the keys"

    def __init__(self, shape: Shape, *, mode: str, rank: int | None = None) -> None:
        super().__init__(shape)
        width, heads, length = shape.width, shape.heads, shape.length
        self.parts = mode.split("+")
        if not set(self.parts) <= set(MODES):
            raise ValueError(f"mode={mode!r}: it must be one of {', '.join(MODES)}, or several joined by +")
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"mode={mode!r}: each part may be used only once")
        if rank is not None and "factorised" not in self.parts:
            raise ValueError(f"rank={rank}: mode={mode!r} has none; only factorised takes it")
        if rank is not None and not 1 <= rank <= length:
            raise ValueError(f"rank={rank}: with length {length} it must be 1..{length}")
        # Small initial logits, so that initial weights are nearly uniform.
        if "dense" in self.parts:
            self.hidden = nn.Linear(width, width)
            self.positions = nn.Parameter(torch.randn(heads, length, self.head_dim) * self.head_dim**-0.5)
        if "random" in self.parts:
            self.table = nn.Parameter(torch.randn(heads, length, length) * length**-0.5)
        if "factorised" in self.parts:
            rank = min(PAPERS_RANK, length) if rank is None else rank
            self.factors = nn.Parameter(torch.randn(2, heads, length, rank) * (rank * length) ** -0.25)
        if "factorised_dense" in self.parts:
            self.columns = math.isqrt(length - 1) + 1
            tiles = self.columns + -(-length // self.columns)
            self.tile_hidden = nn.Linear(width, width)
            self.tiles = nn.Parameter(torch.randn(heads, tiles, self.head_dim) * self.head_dim**-0.5)
        if "dot" in self.parts:
            self.query = nn.Linear(width, width, bias=False)
            self.key = nn.Linear(width, width, bias=False)
            init_key_from_query(self.query, self.key, head_dim=self.head_dim)
        if len(self.parts) > 1:
            self.shares = nn.Parameter(torch.zeros(len(self.parts)))  # logits of the mixture weights
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The values, weighted by the synthesized weights."""
        return self._mix(x, self.split_heads(self.value(x)), self._dot_keys(x), padding)

    def _mix(self, x: Tensor, v: Tensor, dot_keys: Sequence[Tensor], padding: Tensor | None) -> Tensor:
        n = x.shape[1]
        if self.parts == ["random"]:
            mixed = _attend_by_table(self.table[:, :n, :n], v, padding=padding, causal=self.causal)
        elif self.parts == ["factorised"] and padding is None:
            mixed = _attend_by_factors(self.factors[0, :, :n], self.factors[1, :, :n], v, causal=self.causal)
        elif not {"random", "factorised_dense"} & set(self.parts):
            # Logits that are a matrix product are attention with the two factors as queries and keys.
            q, k = self._queries_and_keys(x, dot_keys)
            d = max(q.shape[-1], self.head_dim)  # the fused kernel needs equal head dims
            q, k, v = _zero_pad(q, d), _zero_pad(k, d), _zero_pad(v, d)
            mixed = softmax_attention(q, k, v, padding=padding, causal=self.causal, scale=1.0)[..., : self.head_dim]
        else:
            mixed = mask_logits(self._logits(x, dot_keys), padding, causal=self.causal).softmax(-1) @ v
        output: Tensor = self.output(self.merge_heads(mixed))
        return output

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """Empty values and, for ``dot``, keys, ``(batch, heads, 0, head_dim)``."""
        return (self.new_zeros(batch, self.heads, 0, self.head_dim),) * (2 if "dot" in self.parts else 1)

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of ``mix``; values and, for ``dot``, keys."""
        values, keys = self.split_heads(self.value(x)), self._dot_keys(x)
        return self._mix(x, values, keys, None), (values, *keys)

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the cached tokens and to itself."""
        values, *keys = tensors = appended(cache.tensors, (self.split_heads(self.value(x)), *self._dot_keys(x)))
        weights = self._logits(x, keys, start=cache.position).softmax(-1)
        return self.output(self.merge_heads(weights @ values)), tensors

    def _dot_keys(self, x: Tensor) -> tuple[Tensor, ...]:
        """Keys for ``dot``, ``(batch, heads, n, head_dim)``; none without that part."""
        return (self.split_heads(self.key(x)),) if "dot" in self.parts else ()

    def _shares(self) -> dict[str, Tensor | float]:
        """The mixture weight of each part."""
        if len(self.parts) == 1:
            return {self.parts[0]: 1.0}
        return dict(zip(self.parts, self.shares.softmax(0), strict=True))

    def _logits(self, x: Tensor, dot_keys: Sequence[Tensor], start: int = 0) -> Tensor:
        """The mixed logits, ``(batch or 1, heads, m, start + m)``, of ``m`` tokens from position ``start`` on."""
        end, shares, logits = start + x.shape[1], self._shares(), []
        if "random" in shares:
            logits.append(shares["random"] * self.table[None, :, start:end, :end])
        if "factorised_dense" in shares:
            tiles = self.split_heads(F.relu(self.tile_hidden(x))) @ self.tiles.transpose(-1, -2)
            column, row = tiles[..., : self.columns], shares["factorised_dense"] * tiles[..., self.columns :]
            logits.append((row[..., :, None] * column[..., None, :]).flatten(-2)[..., :end])
        if {"dense", "factorised", "dot"} & set(self.parts):
            q, k = self._queries_and_keys(x, dot_keys, start)
            logits.append(q @ k.transpose(-1, -2))
        return sum(logits[1:], start=logits[0])

    def _queries_and_keys(self, x: Tensor, dot_keys: Sequence[Tensor], start: int = 0) -> tuple[Tensor, Tensor]:
        """Two matrices whose product is the logits of the parts ``dot``, ``dense`` and ``factorised``.

        Returns:
            ``(batch, heads, m, d)`` and ``(batch, heads, start + m, d)``.
        """
        end, shares = start + x.shape[1], self._shares()
        queries, keys = [], list(dot_keys)
        if "dot" in shares:
            queries.append(shares["dot"] * self.head_dim**-0.5 * self.split_heads(self.query(x)))
        if "dense" in shares:
            queries.append(shares["dense"] * self.split_heads(F.relu(self.hidden(x))))
            keys.append(self.positions[:, :end].expand(x.shape[0], -1, -1, -1))
        if "factorised" in shares:
            queries.append((shares["factorised"] * self.factors[0, :, start:end]).expand(x.shape[0], -1, -1, -1))
            keys.append(self.factors[1, :, :end].expand(x.shape[0], -1, -1, -1))
        return _concat_features(queries), _concat_features(keys)


def _concat_features(features: list[Tensor]) -> Tensor:
    """Concatenation along the last dimension, without a copy if there is only one."""
    return features[0] if len(features) == 1 else torch.cat(features, dim=-1)


def _zero_pad(x: Tensor, d: int) -> Tensor:
    """``x`` with its last dimension padded to ``d`` by zeros."""
    return x if x.shape[-1] == d else F.pad(x, (0, d - x.shape[-1]))


def _attend_by_table(table: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
    """softmax(table) v for ``table`` ``(heads, n, n)`` and ``v`` ``(batch, heads, n, d)``, which is 0 at padding.

    The weights are shared by the batch: one softmax and one matrix product per head suffice.
    """
    n = table.shape[-1]
    if causal:
        table = table.masked_fill(table.new_ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    weights = table.softmax(-1)
    mixed = _unfold_batch(torch.bmm(weights, _fold_batch(v)), v)
    if padding is None:
        return mixed
    kept = (weights @ (~padding).T.to(weights.dtype)).permute(2, 0, 1)[..., None]  # (batch, heads, n, 1)
    return mixed / kept.masked_fill(kept == 0, 1.0)


def _attend_by_factors(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """softmax(q k^T) v for ``q`` and ``k`` ``(heads, n, rank)`` and ``v`` ``(batch, heads, n, d)``."""
    values = _fold_batch(v)
    mixed: Tensor = _Factorised.apply(q.to(v.dtype), k.to(v.dtype), values, causal)  # type: ignore[no-untyped-call]
    return _unfold_batch(mixed, v)


def _fold_batch(v: Tensor) -> Tensor:
    """``(batch, heads, n, d)`` to ``(heads, n, batch * d)``."""
    return v.permute(1, 2, 0, 3).flatten(2)


def _unfold_batch(mixed: Tensor, v: Tensor) -> Tensor:
    """``(heads, n, batch * d)`` to ``(batch, heads, n, d)``, the shape of ``v``."""
    return mixed.unflatten(2, v.shape[::3]).permute(2, 0, 1, 3)


class _Factorised(torch.autograd.Function):
    """softmax(q k^T) v in slabs of rows, recomputed for the gradients."""

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
    """Slabs of rows with their weights ``(heads, rows, keys)``; when causal, up to the last key of the slab."""
    heads, n, _ = q.shape
    most = max(1, SLAB // (heads * n))
    if causal:  # shorter slabs compute fewer masked weights
        most = min(most, -(-n // 8))
    for start in range(0, n, most):
        rows = slice(start, min(start + most, n))
        logits = q[:, rows] @ k[:, : rows.stop if causal else n].mT
        if causal:
            later = torch.ones(logits.shape[1:], dtype=torch.bool, device=q.device).triu(start + 1)
            logits.masked_fill_(later, -torch.inf)
        yield rows, logits.softmax(-1)
