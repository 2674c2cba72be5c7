"""Intervals of 95 % of means of repeated trainings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from search.study.confirmations import Repetition
from search.study.records import Objectives
from spaces.evaluation import LEVEL


@dataclass(frozen=True)
class Sample:
    """The metrics of repeated trainings on one split, at least two."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the values."""
        return fmean(self.values)

    @property
    def std(self) -> float:
        """The standard deviation."""
        return stdev(self.values)

    @property
    def margin(self) -> float:
        """Half the 95 % confidence interval of the mean, by Student's t distribution."""
        return self._quantile(LEVEL / 2) * self.std / math.sqrt(len(self.values))

    @property
    def reach(self) -> float:
        """How far above the mean a further training may be, at 95 %, one-sided."""
        return self._quantile(LEVEL) * self.std * math.sqrt(1 + 1 / len(self.values))

    def _quantile(self, tail: float) -> float:
        from scipy import stats

        return float(stats.t.isf(tail, len(self.values) - 1))

    def __str__(self) -> str:
        return f"{self.mean:.4f} ±{self.margin:.4f}"


def sample(
    repetitions: Iterable[Repetition], split: Literal["validation", "test"], objectives: Objectives
) -> Sample | None:
    """The metrics of repeated trainings; None of fewer than two finite ones."""
    found: list[Mapping[str, float]] = [getattr(each, split) for each in repetitions]
    values = [each.get(objectives.metric, math.nan) for each in found]
    finite = tuple(value for value in values if math.isfinite(value))
    return Sample(finite) if len(finite) > 1 else None


def samples(repetitions: Mapping[int, Mapping[int, Repetition]], objectives: Objectives) -> dict[int, Sample]:
    """The metrics on validation by trial, from repetitions by trial and seed."""
    found = {number: sample(by_seed.values(), "validation", objectives) for number, by_seed in repetitions.items()}
    return {number: each for number, each in found.items() if each is not None}
