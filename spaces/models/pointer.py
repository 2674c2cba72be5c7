"""A pointer-generator output: each output token is generated from the vocabulary or copied from the source.

See et al., "Get To The Point: Summarization with Pointer-Generator Networks", 2017, equations 8 and 9. The copy
distribution is an attention of its own here, as the decoder's mechanisms need not have weights for each source token.

What follows an equal token is preferred: if the latest output token occurs in the source, the token after it has a
higher score, by a learned number (as the selective read of Gu et al., "Incorporating Copying Mechanism in
Sequence-to-Sequence Learning", 2016, section 3.3). So an untrained network already continues a passage of the source
that it has begun, and a separator ``BOS`` in the source marks where it begins.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COPY_BIAS = 2.0  # initial logit of copying
OUTSIDE = -1  # in place of an id, before the first token
MATCHES = 5  # the latest output tokens that are compared with those before a token of the source
MATCH_SCORE = 4.0  # initial score of each of them


class PointerSource(NamedTuple):
    """What is computed once for each source."""

    keys: Tensor  # (batch, n, width)
    ids: Tensor  # (batch, n)
    same: Tensor  # (batch, n, n), 1 where two tokens have the same id, else 0
    first: Tensor  # (batch, n), 1 where no earlier token has the same id, else 0
    padding: Tensor | None  # (batch, n) bool


class PointerGenerator(nn.Module):
    """Mixes a distribution over the vocabulary with one over the tokens of the source.

    Args:
        width: features per token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.match_scores = nn.Parameter(torch.full((MATCHES,), MATCH_SCORE))
        self.copy_logit = nn.Linear(width, 1)
        nn.init.constant_(self.copy_logit.bias, COPY_BIAS)
        # So that an untrained pointer depends on equal tokens alone; the keys are random, so the queries can learn.
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.copy_logit.weight)

    def encode_source(self, x: Tensor, ids: Tensor, padding: Tensor | None) -> PointerSource:
        """Features ``(batch, n, width)`` and ids ``(batch, n)`` of a source to what :meth:`forward` needs of it."""
        same = ids[:, :, None] == ids[:, None]
        first = ~same.tril(-1).any(2)
        return PointerSource(self.key(x), ids, same.to(x.dtype), first.to(x.dtype), padding)

    def forward(self, x: Tensor, latest: Tensor, logits: Tensor, source: PointerSource) -> Tensor:
        """Logits of the next token, of the mixture.

        Args:
            x: features of the output tokens, ``(batch, m, width)``.
            latest: the ids of each of them and of those before it, from :func:`latest_ids`.
            logits: of the vocabulary, ``(batch, m, classes)``.
            source: from :meth:`encode_source`; each has a token that is not padding.
        """
        scores = self.query(x) @ source.keys.mT / math.sqrt(x.shape[-1]) + self._match(source.ids, latest)
        if source.padding is not None:
            scores = scores.masked_fill(source.padding[:, None], -torch.inf)
        # With p = softmax(logits), the copy distribution c and the probability g of copying, (1 - g) p + g c is
        # proportional to exp(logits) + exp(s), where s = logsumexp(logits) + log(g / (1 - g)) + log c. So only logits
        # of tokens of the source change, which is much faster than a mixture over the vocabulary; and each of them
        # once, where a token occurs several times.
        copied = (scores.softmax(-1) @ source.same).clamp(min=torch.finfo(scores.dtype).tiny).log()
        ids = source.ids[:, None].expand_as(copied)
        old = logits.gather(2, ids)
        new = logits.logsumexp(2, keepdim=True) + self.copy_logit(x) + copied
        return logits.scatter_add(2, ids, source.first[:, None] * F.softplus(new - old))

    def _match(self, source: Tensor, latest: Tensor) -> Tensor:
        """The scores of source tokens for the tokens before them, ``(batch, m, n)``."""
        before = latest_ids(F.pad(source, (1, 0), value=OUTSIDE)[:, :-1])
        equal = before[:, None] == latest[:, :, None]  # (batch, m, n, MATCHES)
        # Whether all up to one are equal: their number is that of the comparisons (ONNX has no cumulative product).
        all_equal = equal.cumsum(-1) == torch.arange(1, MATCHES + 1, device=equal.device)
        return all_equal.to(self.match_scores.dtype) @ self.match_scores


def latest_ids(ids: Tensor) -> Tensor:
    """Each of the ids ``(batch, n)`` and those before it, the latest first: ``(batch, n, MATCHES)``."""
    n = ids.shape[1]
    return torch.stack([F.pad(ids, (back, 0), value=OUTSIDE)[:, :n] for back in range(MATCHES)], dim=-1)
