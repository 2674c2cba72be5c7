"""References as in ``references.py``, for the mechanisms that let a token attend to few others."""

from __future__ import annotations

import torch
from references import attend, by_head, everything_seen, qkv


def seen_by_blocks(mechanism, x, real, listed):
    """``listed``: for each block, the blocks that it sees."""
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
