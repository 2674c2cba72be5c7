"""Tokens that stand anywhere among blanks are to be said again in order; generated.

Gu and Dao, "Mamba", 2023, section 3.1, after Jing et al., "Gated Orthogonal Recurrent Units", 2019, in the form of Poli
et al., "Mechanistic Design and Scaling of Hybrid Architectures" (MAD), 2024. To say the third token, a model must find
out which one is the third, so fixed places do not do, and counting does. Content is spread evenly over all places
before the marker; the published generator lets no blank follow the last token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks.copying import Copying


class SelectiveCopying(Copying):
    """Fraction of tokens that are said again; see :class:`~spaces.tasks.copying.Copying` for the settings."""

    def places(self, rows: int, room: int, generator: torch.Generator) -> Tensor:
        """Any, each as likely as the other."""
        return torch.rand(rows, room, generator=generator).argsort(1)[:, : self.tokens].sort(1).values
