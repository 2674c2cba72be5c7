"""Softmax attention estimated by random features, whose sums over keys are taken once, for all queries.

Choromanski et al., "Rethinking Attention with Performers", 2021, sections 2.3 and 2.4 (FAVOR+): the mean over features
w of exp(w.q - |q|^2 / 2) exp(w.k - |k|^2 / 2) is exp(q.k) if w is normal; directions that are orthogonal to each other
lower its variance. O(length * features) time.

Features are divided by a large one of their kind before they overflow. For keys that must not show: where the largest
so far grows, sums over earlier keys are scaled down with it, as by a decay; no key is compared with later ones. That
cancels exactly in the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State, equal_query_key
from spaces.attention.scan import quotient, scan, scan_step, with_ones

# Added to a query's features, whose largest is 1: the sum of weights is then never 0, however far apart q and k are.
EPSILON = 1e-6


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
        q = self._query_features(x)
        k, v, largest = self._keys_and_values(x, padding)
        if not self.causal:
            return self._joined(q @ _sums(k, v, largest))
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
        """On the directions; softmax attention's 1 / sqrt(head_width) is shared by queries and keys."""
        return x @ (self.directions * self.head_width**-0.25)

    def _joined(self, sums: Tensor) -> Tensor:
        """What the heads have summed up to ``(batch, n, width)``."""
        return self.output(self.merge(quotient(sums)))


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
