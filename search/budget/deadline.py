"""The time budget of a run, and whether a trial can still finish in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from search.budget.stopwatch import Stopwatch
from search.study.records import Record, State

OUT_OF_TIME = "the time budget is used up"  # the reason of a trial that is paused at the deadline

MAX_NAMED = 3  # activities that a message names


class OutOfTimeError(RuntimeError):
    """The time budget is used up before the first trial; the message says by what."""


class Deadline:
    """Counts the seconds of a run and of its time budget.

    Attributes:
        reserve_s: seconds kept for what follows the last trial: measuring the front again, printing and tracking.
        stopwatch: of what is done besides training and measuring.

    Args:
        budget_s: seconds of the whole run; infinite for no limit.
        used_s: seconds of the run that have passed before.
        clock: returns seconds.
    """

    def __init__(
        self, budget_s: float = math.inf, *, used_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget_s, self.reserve_s = budget_s, 0.0
        self._clock, self._start = clock, clock() - used_s
        self.stopwatch = Stopwatch(clock)
        if used_s:
            self.stopwatch.seconds["starting Python, reading the configuration"] = used_s

    @property
    def limited(self) -> bool:
        """Whether the run has a time budget."""
        return math.isfinite(self.budget_s)

    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._start

    def total_left_s(self) -> float:
        """Seconds until the run must have ended."""
        return self.budget_s - self.elapsed_s()

    def left_s(self) -> float:
        """Seconds until training must have ended: the reserve is not counted."""
        return self.total_left_s() - self.reserve_s

    def used_share(self) -> float:
        """Share of the time for training that has passed; 0 without a budget."""
        return min(1.0, max(0.0, self.elapsed_s() / (self.budget_s - self.reserve_s))) if self.limited else 0.0

    def is_over(self) -> bool:
        """Whether training must end now."""
        return self.left_s() <= 0

    def check(self) -> None:
        """Raise :class:`OutOfTimeError` if the run should have ended; for what comes before the first trial."""
        if self.total_left_s() > 0:
            return
        self.stopwatch.phase("")
        longest = sorted(self.stopwatch.seconds.items(), key=lambda item: -item[1])[:MAX_NAMED]
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in longest)
        used = f"The {self.budget_s:.0f} s of the time budget were used up before the first trial, after"
        raise OutOfTimeError(f"{used} {self.elapsed_s():.0f} s: {parts}. Give more time (budget=...).")


@dataclass(frozen=True)
class TrialSeconds:
    """Wall-clock seconds of measuring and training of the complete trials.

    While there are none, those of trials that were cut by a deadline are a lower bound.
    """

    typical: float  # the median; 0 if there are none
    fastest: float

    @classmethod
    def of(cls, records: Sequence[Record]) -> TrialSeconds:
        """Those of ``records``."""
        whole = [each for each in records if each.state == State.COMPLETE]
        known = whole or [each for each in records if was_cut(each)]
        seconds = [each.training_s + each.latency_s for each in known] or [0.0]
        return cls(median(seconds), min(seconds))


def was_cut(record: Record) -> bool:
    """Whether a trial is paused because the time budget of its run was used up."""
    return record.state == State.PAUSED and record.stop is not None and record.stop.reason == OUT_OF_TIME
