"""Linear attention that forgets: what a token adds to the sum over keys decays from token to token.

``decay="token"``: every token sets its own decay and weight for each head, as in Dao & Gu, "Transformers are SSMs",
2024, section 7 (Mamba-2; without its convolution and output gate). ``decay="constant"``: one decay a head, as in Sun et
al., "Retentive Network", 2023, section 2. Weights are not divided by their sum; instead each head's output is divided
by its root mean square. O(length) time. Unless causal, the sequence is read from both ends and the two sums are added.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, State, equal_query_key
from spaces.attention.kernels.scan import TokenDecay, scan, scan_step

Decay = Literal["token", "constant"]


class GatedAttention(Mechanism):
    """Sums of values over the tokens before, weighed by ``q . k`` and by how long ago they were.

    Args:
        decay: ``token``, by what each token says, from memories of one token to those of a thousand; ``constant``, by
            1 - 2^-5 in the first head, half as fast in each head after it.
    """

    def __init__(self, *, width: int, heads: int, length: int, causal: bool = False, decay: Decay = "token") -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if decay not in get_args(Decay):
            raise ValueError(f"decay={decay!r}: it must be one of {', '.join(get_args(Decay))}")
        self.decay = decay
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        equal_query_key(self.query, self.key)
        if decay == "token":
            self.token_decay = TokenDecay(width, heads)
        else:
            self.log_decay: Tensor
            log_decay = torch.log1p(-(2.0 ** -(5 + torch.arange(heads))))
            self.register_buffer("log_decay", log_decay[:, None], persistent=False)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The decayed sums, from the left and, unless causal, from the right."""
        q, k, v, log_decay = self._inputs(x)
        if padding is not None:  # it adds nothing, being 0, and must not make anything decay
            log_decay = log_decay.masked_fill(padding[:, None], 0.0)
        sums = scan(q, k, v, log_decay)
        if not self.causal:
            sums = sums + scan(*(y.flip(2) for y in (q, k, v, log_decay))).flip(2)
        return self._joined(sums)

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done: there is no way from a token to those of another sequence."""
        raise ValueError("gated cannot attend to another sequence: its weights decay from token to token along one")

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """The sum over keys, ``(batch, heads, head_width, head_width)``."""
        return (self.zeros(batch, self.heads, self.head_width, self.head_width),)

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Let the sum decay, add the token, weigh."""
        q, k, v, log_decay = self._inputs(x)
        sums, memory = scan_step(q, k, v, state.memory[0], log_decay)
        return self._joined(sums), (memory,)

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(batch, heads, n, head_width)``, logarithms of decays ``(batch, heads, n)``."""
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        if self.decay == "constant":
            return q, k, v, self.log_decay.expand(len(x), -1, x.shape[1])
        steps, log_decay = self.token_decay(x)
        return q, k, v * steps[..., None], log_decay

    def _joined(self, sums: Tensor) -> Tensor:
        """The heads' sums, normalised, to ``(batch, n, width)``."""
        return self.output(self.merge(F.rms_norm(sums, (self.head_width,), eps=1e-6)))
