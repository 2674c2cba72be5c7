"""Attention within a distance that every head learns for itself.

Sukhbaatar et al., "Adaptive Attention Span in Transformers", 2019, section 2.2: weights are multiplied by a mask that
is 1 up to the head's span and falls linearly to 0 over a ramp beyond it, then divided by their sum. Unless causal, the
mask is symmetric. O(length * max_span) time and memory whatever spans are learned, so a cost measured before training
still holds after it; exact softmax attention where all spans are ``max_span = length - 1``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.attention import DecodeCache, Shape
from spaces.attention.kernels.blocks import in_blocks, joined, listed_keys, masked_keys, neighbours_plan
from spaces.attention.kernels.kv_cache import KVCacheMechanism


class AdaptiveSpanAttention(KVCacheMechanism):
    """Windowed attention whose soft mask falls to 0 with distance; the spans are initialised to half of ``max_span``.

    Args:
        max_span: the largest span, in tokens on either side (when causal: on the left), 0..length-1.
        ramp: length in tokens of the ramp beyond the span, at least 1.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
    """

    no_cross_attention = "adaptive_span cannot attend to another sequence: tokens of two sequences have no distance"

    def __init__(
        self,
        shape: Shape,
        *,
        max_span: int,
        ramp: int = 32,
        rope: bool = False,
    ) -> None:
        super().__init__(shape, rope=rope)
        length = shape.length
        if not 0 <= max_span < length:
            raise ValueError(f"max_span={max_span}: with length {length} it must be 0..{length - 1}")
        if ramp < 1:
            raise ValueError(f"ramp={ramp}: it must be at least 1")
        self.max_span, self.ramp = max_span, ramp
        self.span_logits = nn.Parameter(torch.zeros(shape.heads))
        # Queries are processed in blocks, each against the blocks of keys that its window covers. Longer blocks compute
        # more masked logits, shorter ones make less efficient matrix products.
        self.block_size = min(length, max(16, min(64, max_span)))
        reach = -(-max_span // self.block_size)
        plan = neighbours_plan(-(-length // self.block_size), before=reach, after=0 if shape.causal else reach)
        self.plan: Tensor
        self.register_buffer("plan", plan, persistent=False)
        ahead = torch.arange(plan.shape[1] * self.block_size) - reach * self.block_size
        self.distance: Tensor  # (block_size, keys), from each query of a block to the keys of its plan
        self.register_buffer("distance", (ahead - torch.arange(self.block_size)[:, None]).abs(), persistent=False)

    @property
    def span(self) -> Tensor:
        """The learned span of each head in tokens: ``(heads,)``, 0..max_span."""
        return self.max_span * self.span_logits.sigmoid()

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Softmax attention within ``max_span``, times the soft mask, renormalised."""
        projected = self.rotary(self.query(x)), self.rotary(self.key(x)), self.value(x)
        q, k, v = (each.unflatten(-1, (self.heads, self.head_dim)) for each in projected)
        masked = masked_keys(x, self.plan, block_size=self.block_size, padding=padding, causal=self.causal)
        k, v = (listed_keys(each, self.plan, self.block_size) for each in (k, v))
        mixed = self._attend(in_blocks(q, self.block_size), k, v, self.distance, masked)
        output: Tensor = self.output(joined(mixed, x).flatten(2))
        return output

    def kept_tokens(self, n: int) -> int:
        """The last ``max_span`` tokens before the last one, and itself."""
        return self.max_span + 1

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the last ``max_span`` tokens and to itself."""
        q, (keys, values) = self.queries(x, cache.position), self.with_token(x, cache)
        distance = torch.arange(keys.shape[2] - 1, -1, -1, device=x.device)[None]
        masked = torch.zeros_like(distance, dtype=torch.bool)
        return self.output(self.merge_heads(self._attend(q, keys, values, distance, masked))), (keys, values)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, distance: Tensor, masked: Tensor) -> Tensor:
        """Attention with the soft mask of ``distance`` ``(queries, keys)``; weights are 0 where ``masked``, a mask."""
        soft_mask = (1 + (self.span[:, None, None] - distance) / self.ramp).clamp(0, 1)
        soft_mask = soft_mask.masked_fill(distance > self.max_span, 0)
        logits = q @ k.transpose(-1, -2) * self.head_dim**-0.5
        logits = logits.masked_fill(masked | (soft_mask == 0), torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1) * soft_mask
        return weights @ v / weights.sum(-1, keepdim=True)
