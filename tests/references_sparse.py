"""References like those of ``references.py``, for sparse attention."""

from __future__ import annotations

import torch
from references import attend, by_head, everything_seen, qkv


def seen_by_blocks(mechanism, x, real, listed):
    """Block-sparse attention; ``listed`` has the blocks that each block attends to."""
    n, size = x.shape[1], mechanism.block_size
    seen = torch.zeros(n, n, dtype=torch.bool)
    for block, others in enumerate(listed):
        for other in others:
            seen[block * size : (block + 1) * size, other * size : (other + 1) * size] = True
    seen[: getattr(mechanism, "global_tokens", 0)] = True
    seen &= everything_seen(mechanism, n)
    return by_head(mechanism, x, real, lambda x, kept, head: attend(*qkv(mechanism, x, head), seen & kept))


def local(mechanism, x, real):
    blocks = range(len(mechanism.plan))
    reach = (mechanism.plan.shape[1] - 1) // (1 if mechanism.causal else 2)
    return seen_by_blocks(mechanism, x, real, [[j for j in blocks if abs(i - j) <= reach] for i in blocks])


def bigbird(mechanism, x, real):
    return seen_by_blocks(mechanism, x, real, [[j for j in row if j >= 0] for row in mechanism.plan.tolist()])


def entmax(mechanism, x, real, *source):
    def rows(x, kept, head, *source):
        q, k, v = qkv(mechanism, x, head, *source)
        seen = everything_seen(mechanism, len(q), len(k)) & kept
        logits = (q @ k.T * q.shape[-1] ** -0.5).masked_fill(~seen & seen.any(-1, keepdim=True), -1e9)
        return entmax_by_bisection(logits, mechanism.alpha[head]) @ v

    return by_head(mechanism, x, real, rows, *source)


def entmax_by_bisection(logits, alpha):
    """Bisection for tau, then one differentiable Newton step."""

    def weights(tau):
        base = (alpha - 1) * logits - tau
        return torch.where(base > 0, base, 1.0) ** (1 / (alpha - 1)) * (base > 0)

    with torch.no_grad():
        high = ((alpha - 1) * logits).amax(-1, keepdim=True)
        low = high - 1
        for _ in range(60):
            middle = (low + high) / 2
            enough = weights(middle).sum(-1, keepdim=True) >= 1
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    tau = low.clone().requires_grad_()
    (slope,) = torch.autograd.grad(weights(tau).sum(), tau)
    return weights(low - (weights(low).sum(-1, keepdim=True) - 1) / slope)


def sparsemax_by_sorting(logits):
    """Martins and Astudillo, "From Softmax to Sparsemax", 2016, algorithm 1, one row at a time."""
    rows = []
    for row in logits.flatten(0, -2):
        best = row.sort(descending=True).values
        counts = torch.arange(1, len(row) + 1)
        support = (1 + counts * best > best.cumsum(0)).sum()
        rows.append((row - (best[:support].sum() - 1) / support).clamp(min=0))
    return torch.stack(rows).view_as(logits)


def topk(mechanism, x, real, *source):
    def rows(x, kept, head, *source):
        q, k, v = qkv(mechanism, x, head, *source)
        seen = everything_seen(mechanism, len(q), len(k)) & kept
        best = torch.zeros_like(seen)
        for row, logits in enumerate(q @ k.T):
            ordered = sorted(seen[row].nonzero().flatten().tolist(), key=lambda j: -logits[j].item())
            best[row, ordered[: mechanism.k]] = True
        return attend(q, k, v, best)

    return by_head(mechanism, x, real, rows, *source)


def adaptive_span(mechanism, x, real):
    n = x.shape[1]
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    within = everything_seen(mechanism, n) & (distance <= mechanism.max_span)

    def rows(x, kept, head):
        faded = (mechanism.ramp + mechanism.span[head] - distance) / mechanism.ramp
        seen = within & kept & (faded > 0)
        return attend(*qkv(mechanism, x, head), seen, log_counts=torch.where(faded > 0, faded, 1.0).clamp(max=1).log())

    return by_head(mechanism, x, real, rows)
