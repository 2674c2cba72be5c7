"""Sliding-window attention with global tokens: each token sees ``window`` neighbours on either side.

Beltagy et al., "Longformer: The Long-Document Transformer", 2020, section 3.1. O(length * (window + global_tokens))
time; exact softmax attention once ``window`` is ``length - 1``. ``window`` is one-sided: the paper's w, and Hugging
Face's ``attention_window``, is twice ours. The first ``global_tokens`` tokens are the global ones, in every sample.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, State, equal_query_key
from spaces.attention.kernels.blocks import overlapping
from spaces.attention.kernels.pairs import appended
from spaces.attention.kernels.rotary import rotary


class LongformerAttention(Mechanism):
    """Attention within a band, to the global tokens and from them.

    Args:
        window: neighbours seen on either side (when causal: on the left), 0..length-1; 0 leaves a token itself and the
            global tokens.
        dilation: distance between the neighbours seen; ``window * dilation`` must be below ``length``.
        global_tokens: how many leading tokens see every token and are seen by every token, 0..length. They have
            projections of their own for what they see, which start as copies of the local ones.
        rope: whether queries and keys are turned by their positions; see :mod:`spaces.attention.kernels.rotary`.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        length: int,
        causal: bool = False,
        window: int,
        dilation: int = 1,
        global_tokens: int = 0,
        rope: bool = False,
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if not 0 <= window < length:
            raise ValueError(f"window={window}: with length {length} it must be 0..{length - 1}")
        farthest = max(1, (length - 1) // window) if window else 1
        if not 1 <= dilation <= farthest:
            raise ValueError(f"dilation={dilation}: with length {length} and window {window} it must be 1..{farthest}")
        if not 0 <= global_tokens <= length:
            raise ValueError(f"global_tokens={global_tokens}: with length {length} it must be 0..{length}")
        self.window, self.dilation, self.global_tokens, self.rope = window, dilation, global_tokens, rope
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.rotary = rotary(rope, width=width, heads=heads, length=length)
        equal_query_key(self.query, self.key)
        if global_tokens:
            self.global_query = nn.Linear(width, width, bias=False)
            self.global_key = nn.Linear(width, width, bias=False)
            self.global_value = nn.Linear(width, width, bias=False)
            self.global_query.load_state_dict(self.query.state_dict())
            self.global_key.load_state_dict(self.key.state_dict())
            self.global_value.load_state_dict(self.value.state_dict())
        # Queries go in blocks, each against one slice of keys that holds all their windows. Measured over windows of 8
        # to 32: blocks of 16 to 32 are fastest, larger ones spend their time on masked corners.
        self.block = max(16, window)
        self.ahead = 0 if causal else window
        self.slice = window + self.block + self.ahead
        offset = torch.arange(self.slice) - torch.arange(self.block)[:, None]
        band = torch.zeros(offset.shape).masked_fill((offset < 0) | (offset > window + self.ahead), -torch.inf)
        self.band: Tensor  # added to logits; the global tokens stand before the slice
        self.register_buffer("band", F.pad(band, (global_tokens, 0)), persistent=False)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Local attention for all tokens, then the global tokens' rows in its place."""
        hidden = x.new_zeros(1, x.shape[1])  # a mask that is added to logits: minus infinity where nothing may look
        if padding is not None:
            hidden = hidden.masked_fill(padding, -torch.inf)
        mixed = self._attend_locally(x, hidden)
        if self.global_tokens:
            mixed = torch.cat([self._attend_globally(x, hidden), mixed[:, self.global_tokens :]], dim=1)
        output: Tensor = self.output(mixed)
        return output

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done: a token has no window in another sequence."""
        raise ValueError("longformer cannot attend to another sequence: tokens of two sequences have no distance")

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """Keys and values: those within reach; the global tokens' as others see them, and as they see each other."""
        return (self.zeros(batch, self.heads, 0, self.head_width),) * (6 if self.global_tokens else 2)

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A global token attends to the global tokens so far, any other to them and to the window."""
        recent, leading, leading_global = state.memory[:2], state.memory[2:4], state.memory[4:]
        token = self.split(self.rotary(self.key(x), state.position)), self.split(self.value(x))
        if state.position < self.global_tokens:
            q, k = (self.split(self.rotary(each(x), state.position)) for each in (self.global_query, self.global_key))
            leading = appended(leading, token)
            leading_global = appended(leading_global, (k, self.split(self.global_value(x))))
            k, v = leading_global
        else:
            q = self.split(self.rotary(self.query(x), state.position))
            reach = self.window * self.dilation + 1
            recent = tuple(kept[:, :, -reach:] for kept in appended(recent, token))
            first = (recent[0].shape[2] - 1) % self.dilation  # of those whose distance is a multiple of the dilation
            k, v = (kept[:, :, first :: self.dilation] for kept in recent)
            if self.global_tokens:
                k, v = torch.cat([leading[0], k], dim=2), torch.cat([leading[1], v], dim=2)
        output = self.output(self.merge(F.scaled_dot_product_attention(q, k, v)))
        return output, (*recent, *leading, *leading_global)

    def _attend_locally(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Attention to the band and to the global tokens, ``(batch, n, width)``.

        Tokens whose distance is a multiple of ``dilation`` form a plain band problem of their own. These classes are
        laid end to end; what a slice holds of another class is hidden, as is what lies beyond both ends.
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
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask(hidden))
        mixed = self.merge(mixed.flatten(1, 2).unflatten(0, (-1, self.heads)))
        return mixed.unflatten(1, classes.shape[1:3]).transpose(1, 2).flatten(1, 2)[:, : x.shape[1]]

    def _mask(self, hidden: Tensor) -> Tensor:
        """What a block may see of its slice: ``(1 or batch * heads, blocks, block, global_tokens + slice)``."""
        local = hidden.clone()
        local[:, : self.global_tokens] = -torch.inf  # seen once, among the global ones
        local = F.pad(self._by_class(local[..., None], -torch.inf), (0, 0, self.window, self.ahead), value=-torch.inf)
        mask = _prepend(hidden[:, : self.global_tokens, None], self._slices(local).flatten(1, 2))
        if len(mask) > 1:
            mask = mask.repeat_interleave(self.heads, dim=0)
        return mask.transpose(-1, -2) + self.band[:, -mask.shape[2] :]

    def _attend_globally(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The global tokens' rows of full attention, ``(batch, global_tokens, width)``."""
        leading = x[:, : self.global_tokens]
        seen = leading if self.causal else x  # what is behind a global token is global too
        q, k = self.split(self.rotary(self.global_query(leading))), self.split(self.rotary(self.global_key(seen)))
        v = self.split(self.global_value(seen))
        mask = hidden[:, None, None, : seen.shape[1]]
        if self.causal:
            mask = mask + mask.new_full((seen.shape[1], seen.shape[1]), -torch.inf).triu(1)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def _by_class(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """``(batch, n, d)`` to ``(batch, dilation, whole blocks, d)``: token ``i`` goes to class ``i % dilation``."""
        missing = -x.shape[1] % (self.dilation * self.block)
        if missing:
            x = F.pad(x, (0, 0, 0, missing), value=fill)
        return x.unflatten(1, (-1, self.dilation)).transpose(1, 2)

    def _heads_as_samples(self, x: Tensor) -> Tensor:
        """``(batch, n, width)`` to ``(batch * heads, n, head_width)``."""
        return self.split(x).flatten(0, 1)

    def _slices(self, x: Tensor) -> Tensor:
        """``(..., tokens, d)`` to ``(..., blocks, tokens of a slice, d)``, a view; neighbouring slices overlap."""
        return overlapping(x, self.slice, self.block)


def _prepend(rows: Tensor, slices: Tensor) -> Tensor:
    """``rows`` ``(batch, g, d)`` before the tokens of all ``slices`` ``(batch, blocks, s, d)``."""
    return torch.cat([rows[:, None].expand(-1, slices.shape[1], -1, slices.shape[3]), slices], dim=2)
