"""Sliding-window attention with global tokens: each token attends to ``window`` neighbours on either side.

Beltagy et al., "Longformer: The Long-Document Transformer", 2020, section 3.1. O(length * (window + global_tokens))
time; exact softmax attention once ``window`` is ``length - 1``. ``window`` is one-sided: the paper's w, and Hugging
Face's ``attention_window``, is twice ours. The first ``global_tokens`` tokens are the global ones, in every sample.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import DecodeCache, Shape
from spaces.attention.kernels.blocks import overlapping
from spaces.attention.kernels.kv_cache import KVCacheMechanism, appended


class LongformerAttention(KVCacheMechanism):
    """Sliding-window (banded) attention, plus attention to and from global tokens.

    Args:
        window: neighbours on either side (when causal: on the left), 0..length-1; with 0, a token attends to itself and
            to the global tokens only.
        dilation: gap between the neighbours of the window; ``window * dilation`` must be below ``length``.
        global_tokens: how many leading tokens attend to, and are attended to by, every token, 0..length. Their global
            attention has its own projections, initialised as copies of the local ones.
        rope: whether to apply rotary position embeddings; see :mod:`spaces.attention.kernels.rotary`.
    """

    no_cross_attention = "longformer cannot attend to another sequence: tokens of two sequences have no distance"

    def __init__(
        self,
        shape: Shape,
        *,
        window: int,
        dilation: int = 1,
        global_tokens: int = 0,
        rope: bool = False,
    ) -> None:
        super().__init__(shape, rope=rope)
        width, length = shape.width, shape.length
        if not 0 <= window < length:
            raise ValueError(f"window={window}: with length {length} it must be 0..{length - 1}")
        farthest = max(1, (length - 1) // window) if window else 1
        if not 1 <= dilation <= farthest:
            raise ValueError(f"dilation={dilation}: with length {length} and window {window} it must be 1..{farthest}")
        if not 0 <= global_tokens <= length:
            raise ValueError(f"global_tokens={global_tokens}: with length {length} it must be 0..{length}")
        self.window, self.dilation, self.global_tokens, self.rope = window, dilation, global_tokens, rope
        if global_tokens:
            self.global_query = nn.Linear(width, width, bias=False)
            self.global_key = nn.Linear(width, width, bias=False)
            self.global_value = nn.Linear(width, width, bias=False)
            self.global_query.load_state_dict(self.query.state_dict())
            self.global_key.load_state_dict(self.key.state_dict())
            self.global_value.load_state_dict(self.value.state_dict())
        # Queries are processed in blocks, each against one slice of keys that covers all their windows. Measured for
        # windows of 8 to 32: blocks of 16 to 32 are fastest; larger ones compute more masked logits.
        self.block = max(16, window)
        self.reach = window * dilation + 1  # tokens up to the farthest one of the window on the left
        self.ahead = 0 if shape.causal else window
        self.slice = window + self.block + self.ahead
        offset = torch.arange(self.slice) - torch.arange(self.block)[:, None]
        band = torch.zeros(offset.shape).masked_fill((offset < 0) | (offset > window + self.ahead), -torch.inf)
        self.band: Tensor  # additive mask; its first columns are the global tokens, the others the slice
        self.register_buffer("band", F.pad(band, (global_tokens, 0)), persistent=False)

    def input_projections(self) -> tuple[nn.Linear, ...]:
        """The local and, with global tokens, the global ones."""
        local = super().input_projections()
        return (*local, self.global_query, self.global_key, self.global_value) if self.global_tokens else local

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Local attention for all tokens; the rows of global tokens are then replaced by full attention."""
        mask = x.new_zeros(1, x.shape[1])  # additive mask: minus infinity at padding
        if padding is not None:
            mask = mask.masked_fill(padding, -torch.inf)
        mixed = self._attend_locally(x, mask)
        if self.global_tokens:
            mixed = torch.cat([self._attend_globally(x, mask), mixed[:, self.global_tokens :]], dim=1)
        output: Tensor = self.output(mixed)
        return output

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """Keys and values of the window; local and global ones of the global tokens."""
        return (self.new_zeros(batch, self.heads, 0, self.head_dim),) * (6 if self.global_tokens else 2)

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of ``mix``; keys and values as in :meth:`initial_tensors`."""
        start = max(self.global_tokens, x.shape[1] - self.reach)
        tensors: tuple[Tensor, ...] = self.keys_and_values(x[:, start:], start)
        if self.global_tokens:
            leading = x[:, : self.global_tokens]
            tensors = *tensors, *self.keys_and_values(leading), *self._global_keys_and_values(leading)
        return self.mix(x, None), tensors

    def _global_keys_and_values(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        return self.split_heads(self.rotary(self.global_key(x), start)), self.split_heads(self.global_value(x))

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A global token attends to the global tokens so far, any other token to all global tokens and its window."""
        recent, leading, leading_global = cache.tensors[:2], cache.tensors[2:4], cache.tensors[4:]
        token = self.keys_and_values(x, cache.position)
        if cache.position < self.global_tokens:
            q = self.split_heads(self.rotary(self.global_query(x), cache.position))
            leading = appended(leading, token)
            leading_global = appended(leading_global, self._global_keys_and_values(x, cache.position))
            k, v = leading_global
        else:
            q = self.queries(x, cache.position)
            recent = tuple(cached[:, :, -self.reach :] for cached in appended(recent, token))
            first = (recent[0].shape[2] - 1) % self.dilation  # the oldest whose distance is a multiple of the dilation
            k, v = (cached[:, :, first :: self.dilation] for cached in recent)
            if self.global_tokens:
                k, v = torch.cat([leading[0], k], dim=2), torch.cat([leading[1], v], dim=2)
        output = self.output(self.merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return output, (*recent, *leading, *leading_global)

    def _attend_locally(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention to the window and to the global tokens, ``(batch, n, width)``.

        Tokens whose distance is a multiple of ``dilation`` form a banded attention problem without dilation. These
        residue classes are concatenated; keys of other classes within a slice, and beyond both ends, are masked.
        """
        classes = self._by_class(x)
        ordered = classes.flatten(1, 2)
        around = F.pad(ordered, (0, 0, self.window, self.ahead))
        q, k = self.query(ordered), self.key(around)
        if self.rope:
            at = self._by_class(torch.arange(x.shape[1], device=x.device)[None, :, None]).flatten()
            q, k = self.rotary(q, at), self.rotary(k, F.pad(at, (self.window, self.ahead)))
        q = self._heads_as_samples(q).unflatten(1, (-1, self.block))
        k, v = (self._slices(self._heads_as_samples(each)) for each in (k, self.value(around)))
        if self.global_tokens:
            leading = x[:, : self.global_tokens]
            k = _prepend(self._heads_as_samples(self.rotary(self.key(leading))), k)
            v = _prepend(self._heads_as_samples(self.value(leading)), v)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._block_mask(mask))
        mixed = self.merge_heads(mixed.flatten(1, 2).unflatten(0, (-1, self.heads)))
        return mixed.unflatten(1, classes.shape[1:3]).transpose(1, 2).flatten(1, 2)[:, : x.shape[1]]

    def _block_mask(self, mask: Tensor) -> Tensor:
        """The additive mask of each block, ``(1 or batch * heads, blocks, block, global_tokens + slice)``."""
        local = mask.clone()
        local[:, : self.global_tokens] = -torch.inf  # attended to once, as global keys
        local = F.pad(self._by_class(local[..., None], -torch.inf), (0, 0, self.window, self.ahead), value=-torch.inf)
        mask = _prepend(mask[:, : self.global_tokens, None], self._slices(local).flatten(1, 2))
        if mask.shape[0] > 1:
            mask = mask.repeat_interleave(self.heads, dim=0)
        return mask.transpose(-1, -2) + self.band[:, -mask.shape[2] :]

    def _attend_globally(self, x: Tensor, mask: Tensor) -> Tensor:
        """Full attention of the global tokens, ``(batch, global_tokens, width)``."""
        leading = x[:, : self.global_tokens]
        seen = leading if self.causal else x  # all tokens before a global one are global
        q = self.split_heads(self.rotary(self.global_query(leading)))
        k, v = self._global_keys_and_values(seen)
        mask = mask[:, None, None, : seen.shape[1]]
        if self.causal:
            mask = mask + mask.new_full((seen.shape[1], seen.shape[1]), -torch.inf).triu(1)
        return self.merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def _by_class(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """``(batch, n, d)`` to ``(batch, dilation, whole blocks of tokens, d)``, class ``i % dilation``."""
        missing = -x.shape[1] % (self.dilation * self.block)
        if missing:
            x = F.pad(x, (0, 0, 0, missing), value=fill)
        return x.unflatten(1, (-1, self.dilation)).transpose(1, 2)

    def _heads_as_samples(self, x: Tensor) -> Tensor:
        """``(batch, n, width)`` to ``(batch * heads, n, head_dim)``."""
        return self.split_heads(x).flatten(0, 1)

    def _slices(self, x: Tensor) -> Tensor:
        """``(..., tokens, d)`` to ``(..., blocks, tokens of a slice, d)``, a view; neighbouring slices overlap."""
        return overlapping(x, self.slice, self.block)


def _prepend(rows: Tensor, slices: Tensor) -> Tensor:
    """``rows`` ``(batch, g, d)`` concatenated before each of ``slices`` ``(batch, blocks, s, d)``."""
    return torch.cat([rows[:, None].expand(-1, slices.shape[1], -1, slices.shape[3]), slices], dim=2)
