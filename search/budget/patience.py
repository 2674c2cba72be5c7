"""Whether the front of a study has stopped growing, from its records alone, so that all workers agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.budget.gain import gain_per_hour, in_order_of_end, work_s
from search.study.records import Objectives, Record

MIN_GROWTH = 1e-3  # relative growth of the hypervolume that counts as growth


@dataclass(frozen=True)
class Patience:
    """How long a study goes on while its front grows too slowly or not at all; at least one of the three is given.

    Args:
        trials: that ended last without growth.
        seconds: of measuring and training, summed over the trials that ended last without growth, of all workers.
        min_gain: of the hypervolume per hour of measuring and training, by the later half of the trials, see
            :func:`~search.budget.gain.gain_per_hour`.
    """

    trials: int | None = None
    seconds: float | None = None
    min_gain: float | None = None

    def reason_to_end(self, records: Sequence[Record], objectives: Objectives) -> str:
        """Why the study ends: the front has not grown by more than ``MIN_GROWTH``, or too slowly; empty if it goes on.

        While all trials together are fewer, the study goes on.
        """
        gain = None if self.min_gain is None else gain_per_hour(records, objectives)
        if gain is not None and self.min_gain is not None and gain < self.min_gain:
            return f"its hypervolume grows by {gain:.2g} an hour, less than min_gain={self.min_gain:g}"
        ended = in_order_of_end(records)
        size = self._latest(ended)
        if not 0 < size < len(ended):
            return ""
        before, now = objectives.hypervolume(ended[:-size]), objectives.hypervolume(ended)
        if now > before * (1 + MIN_GROWTH):
            return ""
        span = f"{size} trials" if self.seconds is None else f"{size} trials, {self.seconds:.0f} s of work,"
        return f"the front has stopped growing: the last {span} increased its hypervolume by at most {MIN_GROWTH:.1%}"

    def _latest(self, ended: Sequence[Record]) -> int:
        """How many of the trials that ended last are compared with those before; 0 if there are too few."""
        if self.trials is not None:
            return self.trials
        if self.seconds is None:
            return 0
        worked = 0.0
        for size, record in enumerate(reversed(ended), start=1):
            worked += work_s(record)
            if worked >= self.seconds:
                return size
        return 0
