"""Attention with alpha-entmax instead of softmax: low logits get a weight of exactly 0; each head learns its alpha.

Correia et al., "Adaptively Sparse Transformers", 2019. alpha-entmax (Peters et al., "Sparse Sequence-to-Sequence
Models", 2019) is softmax as alpha goes to 1 and sparsemax at 2. O(length^2) time and memory: all weights are stored.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from spaces.attention import Shape
from spaces.attention.kernels.pairs import PairsAttention, mask_logits

# Below, single precision does not suffice: a weight is a number near 1 to the power of 1 / (alpha - 1).
LEAST_ALPHA = 1.01


class EntmaxAttention(PairsAttention):
    """Full attention with alpha-entmax in place of softmax.

    Args:
        alpha: initial value, between 1.01 and 2; each head learns its own within these bounds.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(self, shape: Shape, *, alpha: float = 1.5, rope: bool = False) -> None:
        super().__init__(shape, rope=rope)
        if not LEAST_ALPHA < alpha < 2:
            raise ValueError(f"alpha={alpha}: it must lie between {LEAST_ALPHA} and 2, both excluded")
        share = (alpha - LEAST_ALPHA) / (2 - LEAST_ALPHA)
        self.alpha_logits = nn.Parameter(torch.full((shape.heads,), math.log(share / (1 - share))))

    @property
    def alpha(self) -> Tensor:
        """The learned alpha of each head: ``(heads,)``."""
        return LEAST_ALPHA + (2 - LEAST_ALPHA) * self.alpha_logits.sigmoid()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, padding: Tensor | None, causal: bool) -> Tensor:
        """The values, weighted by the entmax of the logits."""
        logits = mask_logits(q @ k.transpose(-1, -2) * self.head_dim**-0.5, padding, causal=causal)
        return entmax(logits, self.alpha[:, None, None]) @ v


def entmax(logits: Tensor, alpha: Tensor) -> Tensor:
    """The weights max(0, (alpha - 1) logits - tau)^(1 / (alpha - 1)), with the tau at which a row of them sums to 1.

    Args:
        logits: ``(..., n)``, finite.
        alpha: above 1 and at most 2, broadcast against rows; ``(heads, 1, 1)`` for logits ``(batch, heads, n, n)``.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    weights: Tensor = _Entmax.apply(logits.to(dtype), alpha.to(dtype))  # type: ignore[no-untyped-call]
    return weights.to(logits.dtype)


class _Entmax(torch.autograd.Function):
    """Newton's method on tau, and the derivative of what it finds."""

    # From below Newton's method rises to tau without ever passing it. It is applied to the 1 / (alpha - 1)-norm rather
    # than to the sum, because that is nearly a straight line; after ten steps rows of 8192 are exact to rounding.
    STEPS = 10

    @staticmethod
    def forward(ctx: Any, logits: Tensor, alpha: Tensor) -> Tensor:
        power = 1 / (alpha - 1)
        scaled = (logits - logits.amax(-1, keepdim=True)).mul_(alpha - 1)
        tau = torch.full_like(scaled[..., :1], -1.0)  # at which the largest weight is 1
        for _ in range(_Entmax.STEPS):
            base = (scaled - tau).clamp_(min=0)
            slopes = _power(base, power - 1)
            total = base.mul_(slopes).sum(-1, keepdim=True)
            tau = tau + (1 - total.pow(-1 / power)) * total / slopes.sum(-1, keepdim=True)
        weights = _power((scaled - tau).clamp_(min=0), power)
        weights /= weights.sum(-1, keepdim=True)  # the last of rounding
        ctx.save_for_backward(weights, alpha)
        return weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,), (weights, alpha) = grads, ctx.saved_tensors
        slopes = _power(weights, 2 - alpha)
        mean = (grad * slopes).sum(-1, keepdim=True) / slopes.sum(-1, keepdim=True)
        centred = grad - mean
        by_alpha = centred * (weights / (alpha - 1) - torch.xlogy(weights, weights)) / (alpha - 1)
        return centred * slopes, by_alpha.sum_to_size(alpha.shape)


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    """``base ** exponent`` for ``base >= 0`` and ``exponent >= 0``, with 0 for 0 ** 0; twice as fast as ``pow``."""
    tiny = torch.finfo(base.dtype).tiny
    return (base + tiny).log2_().mul_(exponent).exp2_().mul_(base.sign())
