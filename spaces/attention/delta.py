"""Gated delta rule: a key-value memory that decays, in which a token overwrites the value stored under its key.

Yang et al., "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024, section 3 (without its convolution and its
output gate): ``S_t = g_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T``, with output ``q_t S_t``. Linear attention only
adds values; here a share ``b_t`` of the value stored under the key is removed first, so a key can be given a new value.
As in :mod:`spaces.attention.gated`, each head's output is normalised by its root mean square (RMSNorm) and, unless
causal, the recurrence runs in both directions and the two results are added. O(length) time.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import DecodeCache, Shape
from spaces.attention.kernels.scan import TokenDecay, decay_between
from spaces.attention.projections import QKVMechanism

CHUNK = 32  # tokens; measured, faster than 16 and 64
Decay = Literal["token", "none"]


class DeltaAttention(QKVMechanism):
    """Linear attention with the (gated) delta rule.

    Args:
        decay: ``token``, a decay ``g_t`` per token and head, computed from the token; ``none``, ``g_t = 1``, the plain
            delta rule of Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
            2024.
    """

    no_cross_attention = "delta cannot attend to another sequence: its memory is read while it is written, along one"

    def __init__(self, shape: Shape, *, decay: Decay = "token") -> None:
        super().__init__(shape)
        if decay not in get_args(Decay):
            raise ValueError(f"decay={decay!r}: it must be one of {', '.join(get_args(Decay))}")
        self.decay = decay
        self.strength = nn.Linear(shape.width, shape.heads)  # logits of b
        if decay == "token":
            self.token_decay = TokenDecay(shape.width, shape.heads)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The delta rule from left to right and, unless causal, also from right to left."""
        q, k, v, strength, log_decay = self._inputs(x)
        if padding is not None:  # padding has the key 0, so it writes nothing; it must not cause decay either
            k = self.zero_padding(k, padding)
            log_decay = log_decay.masked_fill(padding[:, None], 0.0)
        if self.causal:
            return self._project_output(delta_scan(q, k, v, strength, log_decay)[0])
        # Both directions as one batch: the loop over chunks is sequential, the batch dimension is parallel.
        q, k, v, strength, log_decay = (torch.cat([y, y.flip(2)]) for y in (q, k, v, strength, log_decay))
        forward, backward = delta_scan(q, k, v, strength, log_decay)[0].chunk(2)
        return self._project_output(forward + backward.flip(2))

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """The state ``S``, ``(batch, heads, head_dim, head_dim)``."""
        return (self.new_zeros(batch, self.heads, self.head_dim, self.head_dim),)

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of ``mix``, and the state."""
        out, state = delta_scan(*self._inputs(x))
        return self._project_output(out), (state,)

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step of the recurrence."""
        out, state = delta_step(*self._inputs(x), cache.tensors[0])
        return self._project_output(out), (state,)

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(batch, heads, n, head_dim)``; strengths and log decays ``(batch, heads, n)``.

        Queries need no normalisation: their norms cancel in the normalisation of the output.
        """
        q, k, v = self.split_heads(self.query(x)), self.split_heads(self.key(x)), self.split_heads(self.value(x))
        strength = self.strength(x).sigmoid().mT
        log_decay = self.token_decay(x)[1] if self.decay == "token" else torch.zeros_like(strength)
        return q, F.normalize(k, dim=-1), v, strength, log_decay

    def _project_output(self, out: Tensor) -> Tensor:
        """The heads' outputs, normalised, merged and projected to ``(batch, n, width)``."""
        return self.output(self.merge_heads(F.rms_norm(out, (self.head_dim,), eps=1e-6)))


def delta_scan(
    q: Tensor, k: Tensor, v: Tensor, strength: Tensor, log_decay: Tensor, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The outputs ``q_t S_t`` of all tokens, ``(batch, heads, n, e)``, in chunks; the last state, as a second result.

    A token adds ``k_i u_i^T`` to the state, with ``u_i = b_i (v_i - the value stored under k_i)``. Within a chunk these
    ``u`` depend on each other through a triangular system (the paper's WY representation), which is solved in all
    chunks at once: for the values, and for the part that depends on the state at the start of the chunk.

    Args:
        q: ``(batch, heads, n, d)``, as ``k``, whose rows have norm 1, or 0 for a token that writes nothing.
        v: ``(batch, heads, n, e)``.
        strength: ``(batch, heads, n)``, from 0 to 1.
        log_decay: ``(batch, heads, n)``, finite and at most 0.
        chunk: tokens per chunk; changes the time, not the result.
    """
    n = q.shape[2]
    chunk = min(chunk, n)
    if missing := -n % chunk:
        q, k, v = (F.pad(x, (0, 0, 0, missing)) for x in (q, k, v))
        strength, log_decay = F.pad(strength, (0, missing)), F.pad(log_decay, (0, missing))
    q, k, v, strength, log_decay = (x.unflatten(2, (-1, chunk)) for x in (q, k, v, strength, log_decay))
    since = log_decay.cumsum(-1)  # log decay since the start of the chunk
    between, left = decay_between(since), since.exp()[..., None]
    overlap = strength[..., None] * (k @ k.mT) * between  # (row, column): of the column's update under the row's key
    right = strength[..., None] * torch.cat([v, k * left], dim=-1)
    from_values, from_state = _solve_unit_lower(overlap, right).tensor_split([v.shape[-1]], -1)
    k_to_end = (k * (since[..., -1:] - since).exp()[..., None]).mT
    state = from_values.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1])
    states, updates = [], []
    for i in range(q.shape[2]):
        states.append(state)
        updates.append(from_values[:, :, i] - from_state[:, :, i] @ state)
        state = left[:, :, i, -1:] * state + k_to_end[:, :, i] @ updates[i]
    out = (q @ k.mT * between) @ torch.stack(updates, dim=2) + (q * left) @ torch.stack(states, dim=2)
    return out.flatten(2, 3)[:, :, :n], state


def _solve_unit_lower(lower: Tensor, right: Tensor) -> Tensor:
    """The solution x of (I + L) x = ``right``, where L is the strictly lower triangle of ``lower``."""
    precise = torch.promote_types(right.dtype, torch.float32)  # the solver has no half-precision version
    x = torch.linalg.solve_triangular(lower.tril(-1).to(precise), right.to(precise), upper=False, unitriangular=True)
    return x.to(right.dtype)


def delta_step(
    q: Tensor, k: Tensor, v: Tensor, strength: Tensor, log_decay: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of :func:`delta_scan`: its output, and the next ``state``, ``(batch, heads, d, e)``."""
    state = state * log_decay.exp()[..., None]
    state = state + k.mT @ (strength[..., None] * (v - k @ state))
    return q @ state, state
