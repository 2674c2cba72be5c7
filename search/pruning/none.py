"""No rule: every trial is trained to its end, unless its metric is lost to NaN or infinity."""

from __future__ import annotations

from search.pruning import Pruner
from search.study.history import History
from search.study.records import Stop


class NoPruner(Pruner):
    """Stops nobody."""

    def judge(self, row: int, epoch: int, history: History) -> Stop | None:
        """Go on."""
        return None
