"""Gated linear attention: the state, a sum over keys and values, decays from token to token.

``decay="token"``: a decay and a step size per token and head, computed from the token, as in Dao & Gu, "Transformers
are SSMs", 2024, section 7 (Mamba-2; without its convolution and output gate). ``decay="constant"``: one fixed decay per
head, as in Sun et al., "Retentive Network", 2023, section 2. Weights are not divided by their sum; instead each head's
output is normalised by its root mean square (RMSNorm). O(length) time. Unless causal, the recurrence runs in both
directions and the two results are added.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.attention import DecodeCache, Shape
from spaces.attention.kernels.scan import TokenDecay, scan, scan_state, scan_step
from spaces.attention.projections import QKVMechanism

Decay = Literal["token", "constant"]


class GatedAttention(QKVMechanism):
    """Sums of values weighted by ``q . k`` and by a decay that grows with distance.

    Args:
        decay: ``token``, computed from each token, with initial time scales of 1 to 1,000 tokens; ``constant``,
            1 - 2^-(5 + head).
    """

    no_cross_attention = "gated cannot attend to another sequence: its weights decay from token to token along one"

    def __init__(self, shape: Shape, *, decay: Decay = "token") -> None:
        super().__init__(shape)
        if decay not in get_args(Decay):
            raise ValueError(f"decay={decay!r}: it must be one of {', '.join(get_args(Decay))}")
        self.decay = decay
        if decay == "token":
            self.token_decay = TokenDecay(shape.width, shape.heads)
        else:
            self.log_decay: Tensor
            log_decay = torch.log1p(-(2.0 ** -(5 + torch.arange(shape.heads))))
            self.register_buffer("log_decay", log_decay[:, None], persistent=False)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The recurrence from left to right and, unless causal, also from right to left."""
        q, k, v, log_decay = self._inputs(x)
        if padding is not None:  # padding has the key 0, so it adds nothing; it must not cause decay either
            k = self.zero_padding(k, padding)
            log_decay = log_decay.masked_fill(padding[:, None], 0.0)
        sums = scan(q, k, v, log_decay)
        if not self.causal:
            sums = sums + scan(*(y.flip(2) for y in (q, k, v, log_decay))).flip(2)
        return self._project_output(sums)

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """The state, ``(batch, heads, head_dim, head_dim)``."""
        return (self.new_zeros(batch, self.heads, self.head_dim, self.head_dim),)

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of ``mix``, and the state."""
        q, k, v, log_decay = self._inputs(x)
        return self._project_output(scan(q, k, v, log_decay)), (scan_state(k, v, log_decay),)

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step of the recurrence."""
        q, k, v, log_decay = self._inputs(x)
        sums, state = scan_step(q, k, v, cache.tensors[0], log_decay)
        return self._project_output(sums), (state,)

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(batch, heads, n, head_dim)``, log decays ``(batch, heads, n)``."""
        q, k, v = self.split_heads(self.query(x)), self.split_heads(self.key(x)), self.split_heads(self.value(x))
        if self.decay == "constant":
            return q, k, v, self.log_decay.expand(x.shape[0], -1, x.shape[1])
        steps, log_decay = self.token_decay(x)
        return q, k, v * steps[..., None], log_decay

    def _project_output(self, sums: Tensor) -> Tensor:
        """The heads' outputs, normalised, merged and projected to ``(batch, n, width)``."""
        return self.output(self.merge_heads(F.rms_norm(sums, (self.head_dim,), eps=1e-6)))
