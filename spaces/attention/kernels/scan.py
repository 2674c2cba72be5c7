"""Decayed prefix sums: the recurrence of causal linear attention, Performer and gated linear attention.

``out_i = sum over j <= i of exp(d_{j+1} + ... + d_i) (q_i . k_j) v_j``, where ``d <= 0`` are log decays. As a
recurrence: ``S_i = exp(d_i) S_{i-1} + k_i v_i^T`` and ``out_i = q_i S_i``. :func:`scan` computes all tokens in chunks:
masked products within a chunk, states between chunks (Dao & Gu, "Transformers are SSMs", 2024, section 6), in
O(length * (chunk + d)) time per feature. :func:`scan_step` is one step of the recurrence.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 64  # tokens; 32 to 64 are fastest for head dims of 16 to 128 (measured)


def scan(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None, *, chunk: int = CHUNK) -> Tensor:
    """The outputs of all tokens, ``(batch, heads, n, e)``.

    Args:
        q: ``(batch, heads, n, d)``, as ``k``.
        v: ``(batch, heads, n, e)``.
        log_decay: ``(batch, heads, n)``, finite and at most 0, or None for no decay. The first one has no effect.
        chunk: tokens per chunk; changes the time, not the result.
    """
    n = q.shape[2]
    chunk = min(chunk, n)
    if missing := -n % chunk:
        q, k, v = (F.pad(x, (0, 0, 0, missing)) for x in (q, k, v))
        log_decay = None if log_decay is None else F.pad(log_decay, (0, missing))
    q, k, v = (x.unflatten(2, (-1, chunk)) for x in (q, k, v))
    weights = q @ k.mT
    if log_decay is None:
        states = (k.mT @ v)[:, :, :-1]
        out = weights.tril() @ v + q @ F.pad(states.cumsum(2), (0, 0, 0, 0, 1, 0))
    else:
        since = log_decay.unflatten(2, (-1, chunk)).cumsum(-1)  # log decay since the start of the chunk
        between = decay_between(since)
        states = k.mT @ (v * (since[..., -1:] - since).exp()[..., None])
        carried = _carried(states, since[..., -1].exp())
        out = (weights * between) @ v + (q @ carried) * since.exp()[..., None]
    return out.flatten(2, 3)[:, :, :n]


def decay_between(since: Tensor) -> Tensor:
    """The decay factor between tokens ``j`` and ``i``, 0 for ``j > i``.

    Args:
        since: ``(..., chunk)``, the sums of log decays since the start of the chunk.

    Returns:
        ``(..., chunk, chunk)``, rows ``i`` and columns ``j``.
    """
    later = torch.ones(since.shape[-1], since.shape[-1], dtype=torch.bool, device=since.device).triu(1)
    # Masked before exp, which overflows above the diagonal.
    return (since[..., :, None] - since[..., None, :]).masked_fill_(later, -torch.inf).exp_()


def _carried(states: Tensor, keep: Tensor) -> Tensor:
    """The state at the start of each chunk.

    Args:
        states: ``(batch, heads, chunks, d, e)``, the contribution of each chunk.
        keep: ``(batch, heads, chunks)``, the decay over each chunk.
    """
    carried = [torch.zeros_like(states[:, :, 0])]
    for state, factor in zip(states.unbind(2)[:-1], keep[..., None, None].unbind(2), strict=False):
        carried.append(carried[-1] * factor + state)
    return torch.stack(carried, dim=2)


def scan_state(k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """The state ``(batch, heads, d, e)`` after the last token, given the arguments of :func:`scan`."""
    # Summed from the end: the weights of the latest tokens, the largest, have the smallest rounding errors.
    until_end = F.pad(log_decay[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)
    return k.mT @ (v * until_end.exp()[..., None])


def scan_step(q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token of :func:`scan`: its output, and the next ``state`` ``(batch, heads, d, e)``.

    Args:
        q: ``(batch, heads, 1, d)``, as ``k``.
        v: ``(batch, heads, 1, e)``.
        state: of the tokens before; zeros for the first.
        log_decay: ``(batch, heads, 1)``; minus infinity resets the state.
    """
    if log_decay is not None:
        state = state * log_decay.exp()[..., None]
    state = state + k.mT @ v
    return q @ state, state


class TokenDecay(nn.Module):
    """Decays per token and head, computed from the token, with initial time scales of 1 to 1,000 tokens.

    Dao & Gu, "Transformers are SSMs", 2024, section 7: exp(-rate * step), with a rate per head and a step size per
    token. Initialised as there: log-uniform steps from 0.001 to 0.1, uniform rates from 1 to 16.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        steps = torch.exp(torch.empty(heads).uniform_(math.log(0.001), math.log(0.1)))
        self.step_size = nn.Linear(width, heads)
        with torch.no_grad():
            self.step_size.bias.copy_(steps.expm1().log())  # inverse of softplus
        self.log_rates = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The step sizes and log decays of ``x`` ``(batch, n, width)``, both ``(batch, heads, n)``."""
        steps = F.softplus(self.step_size(x).mT.contiguous())  # contiguous: the compiled backward pass needs it
        return steps, -self.log_rates.exp()[:, None] * steps


def append_ones(v: Tensor) -> Tensor:
    """``v`` with a last feature of 1, whose weighted sum is the denominator in :func:`weighted_mean`."""
    return F.pad(v, (0, 1), value=1.0)


def weighted_mean(sums: Tensor) -> Tensor:
    """Weighted means ``(..., e)`` from sums ``(..., e + 1)`` with the sum of weights last; 0 where that is 0."""
    weights = sums[..., -1:]
    return sums[..., :-1] / weights.masked_fill(weights == 0, 1.0)
