"""No rule: every trial is trained to its end, unless its metric is lost to NaN or infinity."""

from __future__ import annotations

from collections.abc import Sequence

from search.pruning import Pruner
from search.records import Objectives, Record


class NoPruner(Pruner):
    """Stops nobody."""

    def judge(self, trial: Record, others: Sequence[Record], objectives: Objectives) -> str | None:
        """Go on."""
        return None
