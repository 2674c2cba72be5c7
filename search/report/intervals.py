"""Intervals of 95 %: of means of repeated trainings, and of a share of finitely many examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal

from search.study.confirmations import Repetition
from search.study.records import Objectives

LEVEL = 0.05
SHARES = ("accuracy", "error_rate")  # metrics that are shares of examples or of their labels


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


def test_examples(data: Mapping[str, Any]) -> int:
    """The number of independent labels in the test split; 0 if it is unknown, or if an example has several labels.

    Args:
        data: of the study; see :meth:`search.study.shared.SharedAttributes.data`.
    """
    return 0 if data.get("per_token", True) else int(data["examples"]["test"])


def margin(metric: float, count: int, objectives: Objectives) -> float | None:
    """The larger side of the 95 % interval of a metric on ``count`` examples; None if it is no share, or of none.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927. The examples must be
    independent.
    """
    if objectives.metric not in SHARES or count < 1:
        return None
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    scale = 1 + z**2 / count
    centre = (metric + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(metric * (1 - metric) / count + z**2 / (4 * count**2))
    return max(centre + half - metric, metric - centre + half)
