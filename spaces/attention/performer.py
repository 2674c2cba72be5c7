"""Softmax attention estimated by positive random features, so that the sum over keys is computed once for all queries.

Choromanski et al., "Rethinking Attention with Performers", 2021, sections 2.3 and 2.4 (FAVOR+): the mean over features
w of exp(w.q - |q|^2 / 2) exp(w.k - |k|^2 / 2) is exp(q.k) if w is normal; directions that are orthogonal to each other
lower its variance. O(length * features) time.

Features are divided by the largest one so that they do not overflow; the factor cancels in the weighted mean. Causal
attention uses a running maximum over the keys: where it grows, the state is scaled down accordingly, as by a decay, so
that no output depends on later keys.

Unless causal, features are computed for a few heads at a time and recomputed for the gradients: a working set that fits
the CPU cache is several times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from spaces.attention import DecodeCache, Shape, SourceCache
from spaces.attention.kernels.scan import append_ones, scan, scan_step, weighted_mean
from spaces.attention.projections import QKVMechanism

# Added to a query's features, whose largest is 1, so that the sum of weights is never 0.
EPSILON = 1e-6
TILE = 1 << 18  # features per tile on a CPU; tiles four times larger or smaller are slower (measured)


class PerformerAttention(QKVMechanism):
    """Attention by positive orthogonal random features, drawn at construction.

    Args:
        features: number of random features, at least 1; the error is proportional to 1 / sqrt(features) and grows with
            exp(|q + k|^2).
    """

    def __init__(self, shape: Shape, *, features: int) -> None:
        super().__init__(shape)
        if features < 1:
            raise ValueError(f"features={features}: it must be at least 1")
        self.directions: Tensor
        self.register_buffer("directions", orthogonal_directions(self.head_dim, features))

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The weighted mean of the values."""
        if not self.causal:
            return self._estimated(x, padding)
        return self._mix_causally(x, *self._keys_and_values(x, padding))

    def _mix_causally(self, x: Tensor, k: Tensor, v: Tensor, largest: Tensor) -> Tensor:
        """Attention to earlier tokens, given :meth:`_keys_and_values`."""
        q, largest = self._query_features(x), largest.cummax(-1).values
        # The maximum is minus infinity before the first token that is not padding; the state is 0 until then.
        log_decay = (-largest.diff(prepend=largest[..., :1])).nan_to_num(nan=0.0, neginf=0.0)
        return self._project_output(scan(q, _divided(k, largest), v, log_decay))

    def source_tensors(self, source: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """The sum over keys of features times values, ``(batch, heads, features, head_dim + 1)``."""
        return (_sums(*self._keys_and_values(source, padding)),)

    def mix_source(self, x: Tensor, cache: SourceCache) -> Tensor:
        """The weighted mean of the source's values."""
        return self._project_output(self._query_features(x) @ cache.tensors[0])

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """The state, ``(batch, heads, features, head_dim + 1)``, and the running maximum, ``(batch, heads, 1)``."""
        sums = self.new_zeros(batch, self.heads, self.directions.shape[1], self.head_dim + 1)
        return sums, self.new_zeros(batch, self.heads, 1) - torch.inf

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of ``mix``, the state and the maximum."""
        k, v, largest = self._keys_and_values(x, None)
        return self._mix_causally(x, k, v, largest), (_sums(k, v, largest), largest.amax(-1, keepdim=True))

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step of the recurrence."""
        sums, before = cache.tensors
        k, v, largest = self._keys_and_values(x, None)
        largest = torch.maximum(before, largest)
        out, sums = scan_step(self._query_features(x), _divided(k, largest), v, sums, before - largest)
        return self._project_output(out), (sums, largest)

    def _estimated(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention that is not causal, in tiles of heads."""
        q, k, v = (self.split_heads(projection(x)) for projection in (self.query, self.key, self.value))
        masked = None if padding is None else padding.repeat_interleave(self.heads, 0)[..., None]
        each = (y.flatten(0, 1) for y in (q, k, append_ones(v)))
        mixed: Tensor = _Estimated.apply(*each, self._directions().to(q.dtype), masked)  # type: ignore[no-untyped-call]
        return self.output(self.merge_heads(mixed.unflatten(0, q.shape[:2])))

    def _query_features(self, x: Tensor) -> Tensor:
        """``(batch, heads, n, features)``, up to a factor per query, which cancels: |q|^2 / 2 is left out."""
        projected = self._projected(self.split_heads(self.query(x)))
        return (projected - projected.detach().amax(-1, keepdim=True)).exp() + EPSILON

    def _keys_and_values(self, x: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Log features of keys, values with a last feature of 1, and the largest log feature of each key."""
        k = self.split_heads(self.key(x))
        k = self._projected(k) - k.square().sum(-1, keepdim=True) * (self.head_dim**-0.5 / 2)
        if padding is not None:
            k = k.masked_fill(padding[:, None, :, None], -torch.inf)
        return k, append_ones(self.split_heads(self.value(x))), k.detach().amax(-1)

    def _projected(self, x: Tensor) -> Tensor:
        return x @ self._directions()

    def _directions(self) -> Tensor:
        """The directions, scaled: queries and keys share the factor 1 / sqrt(head_dim) of softmax attention."""
        return self.directions * self.head_dim**-0.25

    def _project_output(self, sums: Tensor) -> Tensor:
        """The heads' outputs, normalised, merged and projected to ``(batch, n, width)``."""
        return self.output(self.merge_heads(weighted_mean(sums)))


class _Estimated(torch.autograd.Function):
    """Weighted means for ``q`` ``(heads, m, d)``, ``k`` ``(heads, n, d)`` and ``v`` ``(heads, n, e + 1)``.

    The last feature of ``v`` is 1. ``masked`` is ``(heads, n, 1)`` bool, true at masked keys.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, directions: Tensor, masked: Tensor | None) -> Tensor:
        ctx.epsilon = EPSILON
        sums, weights = [], []
        for heads in _tiles(q, k, directions):
            state = v[heads].mT @ _key_features(k, directions, masked, heads)  # (heads, e + 1, features)
            least = EPSILON * state.sum(-1)[:, None]
            by_q = _query_features(q, directions, heads)
            sums.append(torch.baddbmm(least[..., :-1], by_q, state[:, :-1].mT))
            weights.append(torch.baddbmm(least[..., -1:], by_q, state[:, -1:].mT))
        weight = torch.cat(weights)
        weight.masked_fill_(weight == 0, 1.0)
        out = torch.cat(sums).div_(weight)
        ctx.save_for_backward(q, k, v, directions, masked, out, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (q, k, v, directions, masked, out, weight) = grads, ctx.saved_tensors
        grad = grad / weight
        grad = torch.cat([grad, -(grad * out).sum(-1, keepdim=True)], dim=-1)
        found = []
        for heads in _tiles(q, k, directions):
            by_k, values, towards = _key_features(k, directions, masked, heads), v[heads], grad[heads]
            state = values.mT @ by_k
            by_q = _query_features(q, directions, heads)
            by_state = torch.baddbmm(ctx.epsilon * towards.sum(1)[..., None], towards.mT, by_q)
            by_v = by_k @ by_state.mT
            by_q.mul_(towards @ state)
            by_k.mul_(values @ by_state)
            shrunk = by_k.sum(-1, keepdim=True) * k.shape[-1] ** -0.5
            found.append((by_q @ directions.mT, by_k @ directions.mT - k[heads] * shrunk, by_v))
        return *(torch.cat(each) for each in zip(*found, strict=True)), None, None


def _tiles(q: Tensor, k: Tensor, directions: Tensor) -> Iterator[slice]:
    """Slices of a few heads each; a single one in an exported program, whose batch is unknown."""
    if torch.compiler.is_exporting():
        return iter([slice(None)])
    most = len(q)
    if q.device.type == "cpu":
        most = TILE // (max(q.shape[1], k.shape[1]) * directions.shape[1])
    most = max(1, most)
    return (slice(start, start + most) for start in range(0, max(1, len(q)), most))


def _query_features(q: Tensor, directions: Tensor, heads: slice) -> Tensor:
    """``(heads, m, features)``, up to a factor per query and without EPSILON."""
    projected = q[heads] @ directions
    return projected.sub_(projected.amax(-1, keepdim=True)).exp_()


def _key_features(k: Tensor, directions: Tensor, masked: Tensor | None, heads: slice) -> Tensor:
    """``(heads, n, features)``, up to a factor per head."""
    features = k[heads] @ directions
    features.sub_(k[heads].square().sum(-1, keepdim=True) * (k.shape[-1] ** -0.5 / 2))
    if masked is not None:
        features.masked_fill_(masked[heads], -torch.inf)
    largest = features.amax((1, 2), keepdim=True).clamp_(min=torch.finfo(features.dtype).min)
    return features.sub_(largest).exp_()


def _sums(k: Tensor, v: Tensor, largest: Tensor) -> Tensor:
    """The sum over all keys, ``(batch, heads, features, e)``, with features divided by the largest."""
    return _divided(k, largest.amax(-1, keepdim=True)).mT @ v


def _divided(log_features: Tensor, largest: Tensor) -> Tensor:
    """exp(log_features - largest), for ``largest`` without the last dimension; 0 where both are minus infinity."""
    return (log_features - largest.clamp(min=torch.finfo(largest.dtype).min)[..., None]).exp()


def orthogonal_directions(d: int, count: int) -> Tensor:
    """``(d, count)`` normal vectors; each block of ``d`` is orthogonal."""
    q, r = torch.linalg.qr(torch.randn(-(-count // d), d, d))
    # QR is unique, and q uniformly distributed, only if the diagonal of r is positive.
    directions = (q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]).mT.flatten(0, 1)[:count]
    return directions.T * torch.randn(count, d).norm(dim=-1)
