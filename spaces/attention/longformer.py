"""Sliding-window attention with global tokens: each token sees ``window`` neighbours on either side.

Beltagy et al., "Longformer: The Long-Document Transformer", 2020, section 3.1. O(length * (window + global_tokens))
time; exact softmax attention once ``window`` is ``length - 1``. ``window`` is one-sided: the paper's w, and Hugging
Face's ``attention_window``, is twice ours. The first ``global_tokens`` tokens are the global ones, in every sample.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, equal_query_key


class LongformerAttention(Mechanism):
    """Attention within a band, to the global tokens and from them.

    Args:
        window: neighbours seen on either side (when causal: on the left), 0..length-1; 0 leaves a token itself and the
            global tokens.
        dilation: distance between the neighbours seen; ``window * dilation`` must be below ``length``.
        global_tokens: how many leading tokens see every token and are seen by every token, 0..length. They have
            projections of their own for what they see, which start as copies of the local ones.
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
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if not 0 <= window < length:
            raise ValueError(f"window={window}: with length {length} it must be 0..{length - 1}")
        farthest = max(1, (length - 1) // window) if window else 1
        if not 1 <= dilation <= farthest:
            raise ValueError(f"dilation={dilation}: with length {length} and window {window} it must be 1..{farthest}")
        if not 0 <= global_tokens <= length:
            raise ValueError(f"global_tokens={global_tokens}: with length {length} it must be 0..{length}")
        self.window, self.dilation, self.global_tokens = window, dilation, global_tokens
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
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
        behind = torch.arange(self.block + window + self.ahead) - torch.arange(self.block)[:, None]
        self.band: Tensor
        self.register_buffer("band", (behind >= 0) & (behind <= window + self.ahead), persistent=False)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Band attention for all tokens, then the global tokens' rows in its place."""
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        real = x.new_ones(1, x.shape[1], dtype=torch.bool) if padding is None else ~padding
        mixed = self._attend_locally(q, k, v, real)
        if self.global_tokens:
            mixed = torch.cat([self._attend_globally(x, real), mixed[:, :, self.global_tokens :]], dim=2)
        output: Tensor = self.output(self.merge(mixed))
        return output

    def _attend_locally(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        """Attention to the band and the global tokens, ``(batch, heads, n, head_width)``.

        Tokens whose distance is a multiple of ``dilation`` form a plain band problem of their own, so these classes are
        laid end to end; a slice that reaches into the next class is cut off by the mask, as one beyond the ends is.
        """
        heads, n = q.shape[1:3]
        per_class = -(-n // (self.dilation * self.block)) * self.block

        def by_class(x: Tensor) -> Tensor:  # (..., n, d) to (..., dilation, per_class, d)
            x = F.pad(x, (0, 0, 0, per_class * self.dilation - n))
            return x.unflatten(-2, (per_class, self.dilation)).transpose(-2, -3)

        def slices(x: Tensor) -> Tensor:  # (..., tokens, d) to (..., blocks, tokens in a slice, d)
            x = F.pad(x, (0, 0, self.window, self.ahead))
            return x.unfold(-2, self.band.shape[1], self.block).transpose(-1, -2)

        queries = by_class(q).flatten(2, 3).flatten(0, 1).unflatten(1, (-1, self.block))
        keys, values = (slices(by_class(x).flatten(2, 3).flatten(0, 1)) for x in (k, v))
        local = real.clone()
        local[:, : self.global_tokens] = False  # counted once, as global
        seen = slices(by_class(local[..., None])).flatten(1, 2).transpose(-1, -2) & self.band
        if self.global_tokens:
            blocks = queries.shape[1]

            def before(slices: Tensor, x: Tensor) -> Tensor:
                leading = x[:, :, : self.global_tokens].flatten(0, 1)[:, None]
                return torch.cat([leading.expand(-1, blocks, -1, -1), slices], dim=2)

            keys, values = before(keys, k), before(values, v)
            leading = real[:, None, None, : self.global_tokens]
            seen = torch.cat([leading.expand(-1, blocks, self.block, -1), seen], dim=3)
        if len(seen) > 1:
            seen = seen.repeat_interleave(heads, dim=0)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        mixed = mixed.flatten(1, 2).unflatten(1, (self.dilation, per_class)).transpose(1, 2).flatten(1, 2)
        return mixed[:, :n].unflatten(0, (-1, heads))

    def _attend_globally(self, x: Tensor, real: Tensor) -> Tensor:
        """The global tokens' rows of full attention, ``(batch, heads, global_tokens, head_width)``."""
        if self.causal:  # what global tokens see then stands among them
            x, real = x[:, : self.global_tokens], real[:, : self.global_tokens]
        q = self.split(self.global_query(x[:, : self.global_tokens]))
        k, v = self.split(self.global_key(x)), self.split(self.global_value(x))
        seen = real[:, None, None, :]
        if self.causal:
            seen = seen & seen.new_ones(x.shape[1], x.shape[1]).tril()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
