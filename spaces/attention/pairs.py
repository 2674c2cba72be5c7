"""Logits of all pairs of tokens, for mechanisms that no fused kernel can serve: O(length^2) time and memory."""

from __future__ import annotations

import torch
from torch import Tensor


def hide(logits: Tensor, padding: Tensor | None, *, causal: bool) -> Tensor:
    """``logits`` ``(batch or 1, heads, m, n)`` with the lowest finite number where a token must not look.

    Finite, so that a row without anything to see, as a padded token's may be, stays finite: it weighs all keys alike.
    ``m`` is ``n`` if ``causal``.
    """
    n = logits.shape[-1]
    hidden = torch.zeros(1, 1, 1, n, dtype=torch.bool, device=logits.device)
    if padding is not None:
        hidden = padding[:, None, None]
    if causal:
        hidden = hidden | torch.ones(n, n, dtype=torch.bool, device=logits.device).triu(1)
    return logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
