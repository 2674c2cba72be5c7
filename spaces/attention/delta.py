"""Gated delta rule: a memory that decays, and in which a token replaces what stood under its key.

Yang et al., "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024, section 3 (without its convolution and its
output gate): ``S_t = g_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T``, of which a query reads ``q_t S_t``. Linear
attention adds a value to whatever its key holds already; here a share ``b_t`` of that is taken out first, so that a key
may be given another value. As in :mod:`spaces.attention.gated`, each head's output is divided by its root mean square,
and unless causal the sequence is read from both ends and the two results are added. O(length) time.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, State, equal_query_key
from spaces.attention.kernels.scan import TokenDecay, decay_between

CHUNK = 32  # tokens; measured, faster than 16 and 64
Decay = Literal["token", "none"]


class DeltaAttention(Mechanism):
    """A memory of values by keys, written by every token.

    Args:
        decay: ``token``, every token sets for each head how much is left of what came before; ``none``, all of it,
            which is the delta rule alone: Yang et al., "Parallelizing Linear Transformers with the Delta Rule over
            Sequence Length", 2024.
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
        self.strength = nn.Linear(width, heads)  # before its sigmoid
        equal_query_key(self.query, self.key)
        if decay == "token":
            self.token_decay = TokenDecay(width, heads)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """What each token reads, from the left and, unless causal, from the right."""
        q, k, v, strength, log_decay = self._inputs(x)
        if padding is not None:  # its key is 0, so that it writes nothing, and it must not make anything decay
            log_decay = log_decay.masked_fill(padding[:, None], 0.0)
        if self.causal:
            return self._joined(delta_scan(q, k, v, strength, log_decay))
        # Both directions as one batch: chunks follow each other, samples do not wait.
        q, k, v, strength, log_decay = (torch.cat([y, y.flip(2)]) for y in (q, k, v, strength, log_decay))
        forward, backward = delta_scan(q, k, v, strength, log_decay).chunk(2)
        return self._joined(forward + backward.flip(2))

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """It cannot be done: what the memory holds depends on where in its sequence a token reads."""
        raise ValueError("delta cannot attend to another sequence: its memory is read while it is written, along one")

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """Values by keys, ``(batch, heads, head_width, head_width)``."""
        return (self.zeros(batch, self.heads, self.head_width, self.head_width),)

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Let the memory decay, write, read."""
        read, memory = delta_step(*self._inputs(x), state.memory[0])
        return self._joined(read), (memory,)

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(batch, heads, n, head_width)``; strengths and decays' logarithms, without d.

        A query's length does not matter: it cancels where the output is normalised.
        """
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        strength = self.strength(x).sigmoid().mT
        log_decay = self.token_decay(x)[1] if self.decay == "token" else torch.zeros_like(strength)
        return q, F.normalize(k, dim=-1), v, strength, log_decay

    def _joined(self, read: Tensor) -> Tensor:
        """What the heads read, normalised, to ``(batch, n, width)``."""
        return self.output(self.merge(F.rms_norm(read, (self.head_width,), eps=1e-6)))


def delta_scan(q: Tensor, k: Tensor, v: Tensor, strength: Tensor, log_decay: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """What each token reads after it has written, ``(batch, heads, n, e)``.

    A token adds ``k_i u_i^T`` to the memory, with ``u_i = b_i (v_i - what its key held)``. Within a chunk these ``u``
    depend on each other through a triangular system (the paper's WY form), which is solved in all chunks at once, for
    the values and for what the chunk gets to see of the memory before it.

    Args:
        q: ``(batch, heads, n, d)``, as ``k``, whose rows have length 1, or 0 for a token that writes nothing.
        v: ``(batch, heads, n, e)``.
        strength: ``(batch, heads, n)``, from 0 to 1.
        log_decay: ``(batch, heads, n)``, finite and at most 0.
        chunk: tokens taken together; changes the time, not the result.
    """
    n = q.shape[2]
    chunk = min(chunk, n)
    if missing := -n % chunk:
        q, k, v = (F.pad(x, (0, 0, 0, missing)) for x in (q, k, v))
        strength, log_decay = F.pad(strength, (0, missing)), F.pad(log_decay, (0, missing))
    q, k, v, strength, log_decay = (x.unflatten(2, (-1, chunk)) for x in (q, k, v, strength, log_decay))
    since = log_decay.cumsum(-1)  # the start of the chunk
    between, left = decay_between(since), since.exp()[..., None]
    held = strength[..., None] * (k @ k.mT) * between  # by the key of a row, of what the token of a column adds
    added, taken = _solved(held, strength[..., None] * torch.cat([v, k * left], dim=-1)).tensor_split([v.shape[-1]], -1)
    to_the_end = (k * (since[..., -1:] - since).exp()[..., None]).mT
    memory = added.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1])
    before, written = [], []
    for i in range(q.shape[2]):
        before.append(memory)
        written.append(added[:, :, i] - taken[:, :, i] @ memory)
        memory = left[:, :, i, -1:] * memory + to_the_end[:, :, i] @ written[i]
    read = (q @ k.mT * between) @ torch.stack(written, dim=2) + (q * left) @ torch.stack(before, dim=2)
    return read.flatten(2, 3)[:, :, :n]


def _solved(lower: Tensor, right: Tensor) -> Tensor:
    """The x with (I + L) x = ``right``, where L is what ``lower`` holds below its diagonal."""
    precise = torch.promote_types(right.dtype, torch.float32)  # there is no such solver in half precision
    x = torch.linalg.solve_triangular(lower.tril(-1).to(precise), right.to(precise), upper=False, unitriangular=True)
    return x.to(right.dtype)


def delta_step(
    q: Tensor, k: Tensor, v: Tensor, strength: Tensor, log_decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of :func:`delta_scan`: what it reads, and the next ``memory``, ``(batch, heads, d, e)``."""
    memory = memory * log_decay.exp()[..., None]
    memory = memory + k.mT @ (strength[..., None] * (v - k @ memory))
    return q @ memory, memory
