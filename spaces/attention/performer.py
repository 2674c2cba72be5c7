"""Softmax attention estimated by random features, whose sums over keys are taken once, for all queries.

Choromanski et al., "Rethinking Attention with Performers", 2021, sections 2.3 and 2.4 (FAVOR+): the mean over features
w of exp(w.q - |q|^2 / 2) exp(w.k - |k|^2 / 2) is exp(q.k) if w is normal; directions that are orthogonal to each other
lower its variance. O(length * features) time.

Features are divided by a large one of their kind before they overflow. For keys that must not show: where the largest
so far grows, sums over earlier keys are scaled down with it, as by a decay; no key is compared with later ones. That
cancels exactly in the mean.

Unless causal, features are made for a few heads at a time, and made once more for the gradients: what a cache holds is
worked on several times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State, equal_query_key
from spaces.attention.kernels.scan import quotient, scan, scan_step, with_ones

# Added to a query's features, whose largest is 1: the sum of weights is then never 0, however far apart q and k are.
EPSILON = 1e-6
TILE = 1 << 18  # features held at a time on a CPU; measured, four times more and four times fewer are slower


class PerformerAttention(Mechanism):
    """Attention by positive random features, drawn once and then fixed.

    Args:
        features: how many, at least 1; the error falls with their square root, and grows with exp(|q + k|^2).
    """

    def __init__(self, *, width: int, heads: int, length: int, causal: bool = False, features: int) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if features < 1:
            raise ValueError(f"features={features}: it must be at least 1")
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.directions: Tensor
        self.register_buffer("directions", orthogonal_directions(self.head_width, features))
        equal_query_key(self.query, self.key)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The mean of the values, weighed by features."""
        if not self.causal:
            return self._estimated(x, padding)
        q = self._query_features(x)
        k, v, largest = self._keys_and_values(x, padding)
        largest = largest.cummax(-1).values
        # Minus infinity precedes the first token that is not padding; there is nothing yet that could decay.
        log_decay = (-largest.diff(prepend=largest[..., :1])).nan_to_num(nan=0.0, neginf=0.0)
        return self._joined(scan(q, _divided(k, largest), v, log_decay))

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """The sum over keys, ``(batch, heads, features, head_width + 1)``."""
        return (_sums(*self._keys_and_values(source, source_padding)),)

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """The mean of another sequence's values."""
        return self._joined(self._query_features(x) @ memory.kept[0])

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """The sum over keys, ``(batch, heads, features, head_width + 1)``, and its stabiliser ``(batch, heads, 1)``."""
        sums = self.zeros(batch, self.heads, self.directions.shape[1], self.head_width + 1)
        return sums, self.zeros(batch, self.heads, 1) - torch.inf

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Add the token to the sum, then weigh."""
        sums, before = state.memory
        k, v, largest = self._keys_and_values(x, None)
        largest = torch.maximum(before, largest)
        out, sums = scan_step(self._query_features(x), _divided(k, largest), v, sums, before - largest)
        return self._joined(out), (sums, largest)

    def _estimated(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """What is not causal, without the features of all heads at once."""
        q, k, v = (self.split(projection(x)) for projection in (self.query, self.key, self.value))
        hidden = None if padding is None else padding.repeat_interleave(self.heads, 0)[..., None]
        each = (y.flatten(0, 1) for y in (q, k, with_ones(v)))
        mixed: Tensor = _Estimated.apply(*each, self._directions().to(q.dtype), hidden)  # type: ignore[no-untyped-call]
        return self.output(self.merge(mixed.unflatten(0, q.shape[:2])))

    def _query_features(self, x: Tensor) -> Tensor:
        """``(batch, heads, n, features)``, up to a factor of each query, which cancels: |q|^2 / 2 is left out."""
        projected = self._projected(self.split(self.query(x)))
        return (projected - projected.detach().amax(-1, keepdim=True)).exp() + EPSILON

    def _keys_and_values(self, x: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of features of keys, values with ones, and of each key the largest feature's logarithm."""
        k = self.split(self.key(x))
        k = self._projected(k) - k.square().sum(-1, keepdim=True) * (self.head_width**-0.5 / 2)
        if padding is not None:
            k = k.masked_fill(padding[:, None, :, None], -torch.inf)
        return k, with_ones(self.split(self.value(x))), k.detach().amax(-1)

    def _projected(self, x: Tensor) -> Tensor:
        return x @ self._directions()

    def _directions(self) -> Tensor:
        """Softmax attention's 1 / sqrt(head_width) is shared by queries and keys."""
        return self.directions * self.head_width**-0.25

    def _joined(self, sums: Tensor) -> Tensor:
        """What the heads have summed up to ``(batch, n, width)``."""
        return self.output(self.merge(quotient(sums)))


class _Estimated(torch.autograd.Function):
    """The quotient of sums, of ``q`` ``(heads, m, d)``, ``k`` ``(heads, n, d)`` and ``v`` ``(heads, n, e + 1)``.

    The last feature of ``v`` is 1. ``hidden`` is ``(heads, n, 1)`` bool, true at keys that nobody sees.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, directions: Tensor, hidden: Tensor | None) -> Tensor:
        ctx.epsilon = EPSILON
        sums, weights = [], []
        for heads in _tiles(q, k, directions):
            state = v[heads].mT @ _key_features(k, directions, hidden, heads)  # (heads, e + 1, features)
            least = EPSILON * state.sum(-1)[:, None]
            by_q = _query_features(q, directions, heads)
            sums.append(torch.baddbmm(least[..., :-1], by_q, state[:, :-1].mT))
            weights.append(torch.baddbmm(least[..., -1:], by_q, state[:, -1:].mT))
        weight = torch.cat(weights)
        weight.masked_fill_(weight == 0, 1.0)
        out = torch.cat(sums).div_(weight)
        ctx.save_for_backward(q, k, v, directions, hidden, out, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (q, k, v, directions, hidden, out, weight) = grads, ctx.saved_tensors
        grad = grad / weight
        grad = torch.cat([grad, -(grad * out).sum(-1, keepdim=True)], dim=-1)
        found = []
        for heads in _tiles(q, k, directions):
            by_k, values, towards = _key_features(k, directions, hidden, heads), v[heads], grad[heads]
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
    """Some heads at a time."""
    most = len(q)
    if q.device.type == "cpu":
        most = TILE // (max(q.shape[1], k.shape[1]) * directions.shape[1])
    most = max(1, most)
    return (slice(start, start + most) for start in range(0, max(1, len(q)), most))


def _query_features(q: Tensor, directions: Tensor, heads: slice) -> Tensor:
    """``(heads, m, features)``, up to a factor of each query and without EPSILON."""
    projected = q[heads] @ directions
    return projected.sub_(projected.amax(-1, keepdim=True)).exp_()


def _key_features(k: Tensor, directions: Tensor, hidden: Tensor | None, heads: slice) -> Tensor:
    """``(heads, n, features)``, up to a factor of each head."""
    features = k[heads] @ directions
    features.sub_(k[heads].square().sum(-1, keepdim=True) * (k.shape[-1] ** -0.5 / 2))
    if hidden is not None:
        features.masked_fill_(hidden[heads], -torch.inf)
    largest = features.amax((1, 2), keepdim=True).clamp_(min=torch.finfo(features.dtype).min)
    return features.sub_(largest).exp_()


def _sums(k: Tensor, v: Tensor, largest: Tensor) -> Tensor:
    """Over all keys, whose features are divided by the largest of all: ``(batch, heads, features, e)``."""
    return _divided(k, largest.amax(-1, keepdim=True)).mT @ v


def _divided(log_features: Tensor, largest: Tensor) -> Tensor:
    """exp(log_features - largest), for ``largest`` without the last dimension; 0 where both are minus infinity."""
    return (log_features - largest.clamp(min=torch.finfo(largest.dtype).min)[..., None]).exp()


def orthogonal_directions(d: int, count: int) -> Tensor:
    """``(d, count)`` normal vectors; up to ``d`` in a row are orthogonal to each other."""
    q, r = torch.linalg.qr(torch.randn(-(-count // d), d, d))
    # A factorisation chooses signs as it likes; only with r's diagonal positive do directions favour no side.
    directions = (q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]).mT.flatten(0, 1)[:count]
    return directions.T * torch.randn(count, d).norm(dim=-1)
