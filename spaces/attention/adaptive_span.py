"""Attention within a distance that every head learns for itself.

Sukhbaatar et al., "Adaptive Attention Span in Transformers", 2019, section 2.2: weights are multiplied by a mask that
is 1 up to the head's span and falls to 0 over a ramp beyond it, then divided by their sum. Where it is not causal, the
mask is the same on both sides. O(length * max_span) time and memory whatever is learned, so that a cost measured before
training still holds after it; exact softmax attention where all spans are ``max_span`` and that is ``length - 1``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, State, equal_query_key
from spaces.attention.kernels.blocks import hidden_keys, in_blocks, joined, listed_keys, neighbours_plan
from spaces.attention.kernels.pairs import appended
from spaces.attention.kernels.rotary import rotary


class AdaptiveSpanAttention(Mechanism):
    """Attention that fades out with distance; the spans start at half of ``max_span``.

    Args:
        max_span: the farthest neighbour that may be seen on either side (when causal: on the left), 0..length-1.
        ramp: tokens over which the weights fall to 0 beyond the span, at least 1.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        length: int,
        causal: bool = False,
        max_span: int,
        ramp: int = 32,
        rope: bool = False,
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if not 0 <= max_span < length:
            raise ValueError(f"max_span={max_span}: with length {length} it must be 0..{length - 1}")
        if ramp < 1:
            raise ValueError(f"ramp={ramp}: it must be at least 1")
        self.max_span, self.ramp = max_span, ramp
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.span_logits = nn.Parameter(torch.zeros(heads))
        self.rotary = rotary(rope, width=width, heads=heads, length=length)
        equal_query_key(self.query, self.key)
        # Blocks of queries, each against the blocks that hold all it may see: longer ones hold more that is hidden,
        # shorter ones are slower to multiply.
        self.block_size = min(length, max(16, min(64, max_span)))
        reach = -(-max_span // self.block_size)
        plan = neighbours_plan(-(-length // self.block_size), before=reach, after=0 if causal else reach)
        self.plan: Tensor
        self.register_buffer("plan", plan, persistent=False)
        ahead = torch.arange(plan.shape[1] * self.block_size) - reach * self.block_size
        self.distance: Tensor  # from a query of a block to the keys listed for it
        self.register_buffer("distance", (ahead - torch.arange(self.block_size)[:, None]).abs(), persistent=False)

    @property
    def span(self) -> Tensor:
        """Of each head, in tokens: ``(heads,)``, 0..max_span."""
        return self.max_span * self.span_logits.sigmoid()

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Softmax over what is within reach, faded out and divided by its sum."""
        projected = self.rotary(self.query(x)), self.rotary(self.key(x)), self.value(x)
        q, k, v = (each.unflatten(-1, (self.heads, self.head_width)) for each in projected)
        hidden = hidden_keys(x, self.plan, block_size=self.block_size, padding=padding, causal=self.causal)
        k, v = (listed_keys(each, self.plan, self.block_size) for each in (k, v))
        mixed = self._attend(in_blocks(q, self.block_size), k, v, self.distance, hidden)
        output: Tensor = self.output(joined(mixed, x).flatten(2))
        return output

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done: a token has no span in another sequence."""
        raise ValueError("adaptive_span cannot attend to another sequence: tokens of two sequences have no distance")

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """No keys and no values, ``(batch, heads, 0, head_width)``."""
        return (self.zeros(batch, self.heads, 0, self.head_width),) * 2

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend to the last ``max_span`` tokens and to itself; nothing earlier is kept."""
        q, k = (self.split(self.rotary(each(x), state.position)) for each in (self.query, self.key))
        v = self.split(self.value(x))
        keys, values = (kept[:, :, -self.max_span - 1 :] for kept in appended(state.memory, (k, v)))
        distance = torch.arange(keys.shape[2] - 1, -1, -1, device=x.device)[None]
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        return self.output(self.merge(self._attend(q, keys, values, distance, hidden))), (keys, values)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, distance: Tensor, hidden: Tensor) -> Tensor:
        """Weights faded out by ``distance`` ``(queries, keys)``; 0 where ``hidden``, which broadcasts against them."""
        faded = (1 + (self.span[:, None, None] - distance) / self.ramp).clamp(0, 1)
        faded = faded.masked_fill(distance > self.max_span, 0)
        logits = q @ k.transpose(-1, -2) * self.head_width**-0.5
        logits = logits.masked_fill(hidden | (faded == 0), torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1) * faded
        return weights @ v / weights.sum(-1, keepdim=True)
