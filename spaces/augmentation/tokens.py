"""Token dropout: tokens of a text are removed, or replaced where each token has a label.

Removal is word dropout (Iyyer et al., "Deep Unordered Composition Rivals Syntactic Methods for Text Classification",
2015, section 2.3). Replacement by tokens at their frequencies is unigram noising (Xie et al., "Data Noising as
Smoothing in Neural Network Language Models", 2017).
"""

from __future__ import annotations

import torch

from spaces.tasks import Batch


class TokenDropout:
    """Each token is dropped with the same probability.

    Args:
        probability: of a token.
        removes: whether dropped tokens are removed, which shortens the sequence; its first token stays. Otherwise they
            are replaced by the token at a random place of the batch, so that labels stay with their positions.
    """

    def __init__(self, probability: float, *, removes: bool) -> None:
        self._probability, self._removes = probability, removes

    def __call__(self, batch: Batch) -> Batch:
        """Inputs are ids ``(batch, length)``."""
        inputs, padding = batch.inputs, batch.padding
        dropped = torch.rand(inputs.shape, device=inputs.device) < self._probability
        if not self._removes:
            tokens = inputs.flatten() if padding is None else inputs[~padding]
            other = tokens[torch.randint(len(tokens), inputs.shape, device=inputs.device)]
            dropped = dropped if padding is None else dropped & ~padding
            return batch._replace(inputs=torch.where(dropped, other, inputs))
        dropped[:, 0] = False
        dropped = dropped if padding is None else dropped | padding
        order = dropped.int().argsort(dim=1, stable=True)  # what is kept, in its order, then what is dropped
        return batch._replace(inputs=inputs.gather(1, order), padding=dropped.gather(1, order)).trim_padding()
