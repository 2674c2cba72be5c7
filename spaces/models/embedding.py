"""What a token is made of, as features of the model's width: ids by a table, frames by a projection.

A frame is a vector of a sequence that is continuous by nature, such as a spectrogram's or an image's patch
(Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, equation 1).
"""

from __future__ import annotations

from torch import nn

from spaces.tasks import Sizes


def embedding(sizes: Sizes, width: int) -> nn.Module:
    """Ids ``(batch, n)`` to ``(batch, n, width)``, or frames ``(batch, n, features)`` to the same."""
    if sizes.vocabulary is not None:
        return nn.Embedding(sizes.vocabulary, width)
    assert sizes.features is not None, "sizes have one of the two"
    return nn.Linear(sizes.features, width)
