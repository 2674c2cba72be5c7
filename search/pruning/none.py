"""No early stopping: every trial is trained to its last epoch, unless its metric becomes NaN or infinite."""

from __future__ import annotations

from search.pruning import Pruner
from search.study.history import History
from search.study.records import Stop


class NoPruner(Pruner):
    """Stops no trial."""

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Go on."""
        return None
