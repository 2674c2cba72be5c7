"""Sums over the tokens so far, with decay: what causal linear attention, Performer and the gated ones have in common.

``out_i = sum over j <= i of exp(d_{j+1} + ... + d_i) (q_i . k_j) v_j``, where ``d <= 0`` are logarithms of decays. The
same as a recurrence: ``S_i = exp(d_i) S_{i-1} + k_i v_i^T`` and ``out_i = q_i S_i``. :func:`scan` takes all tokens at
once, in chunks: masked products within a chunk, states from chunk to chunk (Dao & Gu, "Transformers are SSMs", 2024,
section 6). O(length * (chunk + d)) time for each feature. :func:`scan_step` is the recurrence.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 64  # tokens; measured, 32 to 64 are fastest for head widths of 16 to 128


def scan(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None, *, chunk: int = CHUNK) -> Tensor:
    """The sums for all tokens, ``(batch, heads, n, e)``.

    Args:
        q: ``(batch, heads, n, d)``, as ``k``.
        v: ``(batch, heads, n, e)``.
        log_decay: ``(batch, heads, n)``, finite and at most 0; without it nothing decays. The first one is of no
            consequence.
        chunk: tokens taken together; changes the time, not the result.
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
        since = log_decay.unflatten(2, (-1, chunk)).cumsum(-1)  # the start of the chunk
        between = decay_between(since)
        states = k.mT @ (v * (since[..., -1:] - since).exp()[..., None])
        carried = _carried(states, since[..., -1].exp())
        out = (weights * between) @ v + (q @ carried) * since.exp()[..., None]
    return out.flatten(2, 3)[:, :, :n]


def decay_between(since: Tensor) -> Tensor:
    """What is left of token ``j`` at token ``i``, 0 for ``j > i``.

    Args:
        since: ``(..., chunk)``, the sums of the logarithms of decays since the start of the chunk.

    Returns:
        ``(..., chunk, chunk)``, rows ``i`` and columns ``j``.
    """
    later = torch.ones(since.shape[-1], since.shape[-1], dtype=torch.bool, device=since.device).triu(1)
    # Hidden before exp, which overflows above the diagonal.
    return (since[..., :, None] - since[..., None, :]).masked_fill_(later, -torch.inf).exp_()


def _carried(states: Tensor, keep: Tensor) -> Tensor:
    """What each chunk gets from those before it.

    Args:
        states: ``(batch, heads, chunks, d, e)``, what a chunk adds.
        keep: ``(batch, heads, chunks)``, the factor by which a chunk shrinks what came before it.
    """
    carried = [torch.zeros_like(states[:, :, 0])]
    for state, factor in zip(states.unbind(2)[:-1], keep[..., None, None].unbind(2), strict=False):
        carried.append(carried[-1] * factor + state)
    return torch.stack(carried, dim=2)


def scan_step(q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token of :func:`scan`: its sum, and the next ``state`` ``(batch, heads, d, e)``, which starts as zeros.

    Args:
        q: ``(batch, heads, 1, d)``, as ``k``.
        v: ``(batch, heads, 1, e)``.
        state: of the tokens before.
        log_decay: ``(batch, heads, 1)``; it may be minus infinity, which forgets.
    """
    if log_decay is not None:
        state = state * log_decay.exp()[..., None]
    state = state + k.mT @ v
    return q @ state, state


class TokenDecay(nn.Module):
    """Decays that each token sets for each head, from memories of one token to those of a thousand.

    Dao & Gu, "Transformers are SSMs", 2024, section 7: exp(-rate * step), with a rate of the head and a step of the
    token. They start as there: steps from 0.001 to 0.1, whose logarithm is uniform, and rates from 1 to 16.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        steps = torch.exp(torch.empty(heads).uniform_(math.log(0.001), math.log(0.1)))
        self.step_size = nn.Linear(width, heads)
        with torch.no_grad():
            self.step_size.bias.copy_(steps.expm1().log())  # softplus, inverted
        self.log_rates = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of ``x`` ``(batch, n, width)`` the steps and the logarithms of decays, both ``(batch, heads, n)``."""
        steps = F.softplus(self.step_size(x).mT.contiguous())  # as it lies: compiled, its gradient asks for that
        return steps, -self.log_rates.exp()[:, None] * steps


def with_ones(v: Tensor) -> Tensor:
    """``v`` and a last feature that is 1, whose sum is what :func:`quotient` divides by."""
    return F.pad(v, (0, 1), value=1.0)


def quotient(sums: Tensor) -> Tensor:
    """The sums ``(..., e + 1)`` of weighted values and of weights, last, to means ``(..., e)``; 0 without weights."""
    weights = sums[..., -1:]
    return sums[..., :-1] / weights.masked_fill(weights == 0, 1.0)
