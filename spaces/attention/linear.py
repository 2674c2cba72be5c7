"""Linear attention: weights are products of feature maps, so that the sum over keys is computed once for all queries.

Katharopoulos et al., "Transformers are RNNs", 2020, section 3: weights phi(q_i) . phi(k_j), divided by their sum.
O(length) time. With ``feature_map="softmax"`` it is Shen et al., "Efficient Attention", 2018, section 3; with
``hedgehog``, whose features are learned, Zhang et al., "The Hedgehog & the Porcupine", 2024, section 4.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import DecodeCache, Shape, SourceCache
from spaces.attention.kernels.scan import append_ones, scan, scan_step, weighted_mean
from spaces.attention.projections import QKVMechanism

FeatureMap = Literal["elu", "relu", "softmax", "hedgehog"]


class LinearAttention(QKVMechanism):
    """Attention with the kernel phi(q) . phi(k) for a positive feature map phi.

    Args:
        feature_map: ``elu`` is elu(x) + 1; ``relu`` is relu(x) + 0.001, so that the sum of weights is never 0;
            ``softmax`` is a softmax of queries over features and of keys over tokens, and so cannot be causal;
            ``hedgehog`` is the softmax over the features of (y, -y), twice as many, for y = W x with a learned matrix
            per head, one for queries and one for keys, initially the identity. Blockwise distillation trains them to
            imitate softmax attention.
    """

    def __init__(self, shape: Shape, *, feature_map: FeatureMap = "elu") -> None:
        super().__init__(shape)
        if feature_map not in get_args(FeatureMap):
            raise ValueError(f"feature_map={feature_map!r}: it must be one of {', '.join(get_args(FeatureMap))}")
        if shape.causal and feature_map == "softmax":
            raise ValueError("causal=True: feature_map='softmax' normalises keys over all tokens, later ones included")
        self.feature_map = feature_map
        self.feature_dim, self.maps = shape.head_dim, None
        if feature_map == "hedgehog":
            identity = torch.eye(shape.head_dim).expand(2, shape.heads, -1, -1)  # of queries and keys
            self.feature_dim, self.maps = 2 * shape.head_dim, nn.Parameter(identity.clone())

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The weighted mean of the values."""
        return self._mix(x, *self._keys_and_values(x, padding))

    def _mix(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = self._queries(x)
        return self._project_output(scan(q, k, v) if self.causal else q @ (k.mT @ v))

    def source_tensors(self, source: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """The sum over keys of features times values, ``(batch, heads, feature_dim, head_dim + 1)``."""
        k, v = self._keys_and_values(source, padding)
        return (k.mT @ v,)

    def mix_source(self, x: Tensor, cache: SourceCache) -> Tensor:
        """The weighted mean of the source's values."""
        return self._project_output(self._queries(x) @ cache.tensors[0])

    def _queries(self, x: Tensor) -> Tensor:
        """The feature map of the queries."""
        q = self.split_heads(self.query(x))
        return q.softmax(-1) if self.feature_map == "softmax" else self.features(q, 0)

    def _keys_and_values(self, x: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The feature map of the keys, 0 at padding, and the values with a last feature of 1."""
        k, v = self.split_heads(self.key(x)), append_ones(self.split_heads(self.value(x)))
        masked = None if padding is None else padding[:, None, :, None]
        if self.feature_map == "softmax":
            return softmax_over_tokens(k, masked), v
        k = self.features(k, 1)
        return (k if masked is None else k.masked_fill(masked, 0.0)), v

    def _project_output(self, sums: Tensor) -> Tensor:
        """The heads' outputs, normalised, merged and projected to ``(batch, n, width)``."""
        return self.output(self.merge_heads(weighted_mean(sums)))

    def features(self, x: Tensor, which: int) -> Tensor:
        """The feature maps ``elu``, ``relu`` and ``hedgehog`` of queries (``which`` is 0) or keys (1)."""
        if self.maps is not None:
            y = x @ self.maps[which].mT
            return torch.cat([y, -y], -1).softmax(-1)
        if self.feature_map == "relu":
            return F.relu(x) + 1e-3
        return _EluPlusOne.apply(x)  # type: ignore[no-untyped-call]

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """The sum over keys of features times values, ``(batch, heads, feature_dim, head_dim + 1)``."""
        return (self.new_zeros(batch, self.heads, self.feature_dim, self.head_dim + 1),)

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of ``mix``, and the state."""
        k, v = self._keys_and_values(x, None)
        return self._mix(x, k, v), (k.mT @ v,)

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step of the recurrence."""
        sums, state = scan_step(self._queries(x), *self._keys_and_values(x, None), *cache.tensors)
        return self._project_output(sums), (state,)


class _EluPlusOne(torch.autograd.Function):
    """elu(x) + 1, with the gradient computed from the output, which is stored anyway: half the time of F.elu."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(max=0).exp_().add_(F.relu(x))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * y.clamp(max=1)


def softmax_over_tokens(k: Tensor, masked: Tensor | None) -> Tensor:
    """``k`` ``(batch, heads, n, d)`` normalised over ``n``; 0 where ``masked`` ``(batch, 1, n, 1)`` is true."""
    if masked is None:
        return k.softmax(2)
    # The lowest finite number instead of minus infinity: where all keys are masked, weights stay finite until zeroed.
    return k.masked_fill(masked, torch.finfo(k.dtype).min).softmax(2).masked_fill(masked, 0.0)
