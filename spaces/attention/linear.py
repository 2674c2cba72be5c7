"""Linear attention: weights that are products of features, so that sums over keys are taken once, for all queries.

Katharopoulos et al., "Transformers are RNNs", 2020, section 3: weights phi(q_i) . phi(k_j), divided by their sum.
O(length) time. With ``feature_map="softmax"`` it is Shen et al., "Efficient Attention", 2018, section 3.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, State, equal_query_key
from spaces.attention.kernels.scan import quotient, scan, scan_step, with_ones

FeatureMap = Literal["elu", "relu", "softmax"]


class LinearAttention(Mechanism):
    """Attention by products of positive features.

    Args:
        feature_map: ``elu`` is elu(x) + 1; ``relu`` is relu(x) + 0.001, which keeps sums of weights above 0;
            ``softmax`` normalises queries over their features and keys over the tokens, and so cannot be causal.
    """

    def __init__(
        self, *, width: int, heads: int, length: int, causal: bool = False, feature_map: FeatureMap = "elu"
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if feature_map not in get_args(FeatureMap):
            raise ValueError(f"feature_map={feature_map!r}: it must be one of {', '.join(get_args(FeatureMap))}")
        if causal and feature_map == "softmax":
            raise ValueError("causal=True: feature_map='softmax' normalises keys over all tokens, later ones included")
        self.feature_map = feature_map
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        equal_query_key(self.query, self.key)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The mean of the values, weighed by features."""
        k, v = self._keys_and_values(x, padding)
        q = self._queries(x)
        return self._joined(scan(q, k, v) if self.causal else q @ (k.mT @ v))

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """The sum over keys, ``(batch, heads, head_width, head_width + 1)``."""
        k, v = self._keys_and_values(source, source_padding)
        return (k.mT @ v,)

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """The mean of another sequence's values."""
        return self._joined(self._queries(x) @ memory.kept[0])

    def _queries(self, x: Tensor) -> Tensor:
        """Features of queries."""
        q = self.split(self.query(x))
        return q.softmax(-1) if self.feature_map == "softmax" else self.features(q)

    def _keys_and_values(self, x: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of keys, 0 at padding, and values with ones."""
        k, v = self.split(self.key(x)), with_ones(self.split(self.value(x)))
        hidden = None if padding is None else padding[:, None, :, None]
        if self.feature_map == "softmax":
            return softmax_over_tokens(k, hidden), v
        k = self.features(k)
        return (k if hidden is None else k.masked_fill(hidden, 0.0)), v

    def _joined(self, sums: Tensor) -> Tensor:
        """What the heads have summed up to ``(batch, n, width)``."""
        return self.output(self.merge(quotient(sums)))

    def features(self, x: Tensor) -> Tensor:
        """Positive features of each token by itself, of the shape of ``x``."""
        if self.feature_map == "relu":
            return F.relu(x) + 1e-3
        return _EluPlusOne.apply(x)  # type: ignore[no-untyped-call]

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """The sum over keys, ``(batch, heads, head_width, head_width + 1)``."""
        return (self.zeros(batch, self.heads, self.head_width, self.head_width + 1),)

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Add the token to the sum, then weigh."""
        sums, memory = scan_step(self._queries(x), *self._keys_and_values(x, None), *state.memory)
        return self._joined(sums), (memory,)


class _EluPlusOne(torch.autograd.Function):
    """elu(x) + 1. Its derivative is read off the result, which the products keep anyway: half the time of F.elu."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(max=0).exp_().add_(F.relu(x))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * y.clamp(max=1)


def softmax_over_tokens(k: Tensor, hidden: Tensor | None) -> Tensor:
    """``k`` ``(batch, heads, n, d)`` normalised over ``n``; 0 where ``hidden`` ``(batch, 1, n, 1)`` is true."""
    if hidden is None:
        return k.softmax(2)
    # The lowest number instead of minus infinity: where all is hidden, weights stay finite until they are zeroed.
    return k.masked_fill(hidden, torch.finfo(k.dtype).min).softmax(2).masked_fill(hidden, 0.0)
