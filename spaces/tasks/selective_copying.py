"""Selective copying: tokens at random positions among blanks must be repeated in order; generated.

Gu and Dao, "Mamba", 2023, section 3.1, after Jing et al., "Gated Orthogonal Recurrent Units", 2019, in the form of Poli
et al., "Mechanistic Design and Scaling of Hybrid Architectures" (MAD), 2024. To repeat the third token, a model must
find out which token is the third, so attention to fixed positions does not suffice. Content is spread uniformly over
all positions before the marker; in the published generator no blank follows the last token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks.copying import Copying


class SelectiveCopying(Copying):
    """Accuracy of the repeated tokens; see :class:`~spaces.tasks.copying.Copying` for the settings."""

    def positions(self, rows: int, available: int, generator: torch.Generator) -> Tensor:
        """Uniformly random positions, ascending, ``(rows, tokens)``."""
        return torch.rand(rows, available, generator=generator).argsort(1)[:, : self.tokens].sort(1).values
