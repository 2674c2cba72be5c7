"""The metrics of a network or a baseline on a split, and how far its metric on test may be from that on all data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, stdev
from typing import Any

from spaces.tasks import Batch, Split, Task

LEVEL = 0.05
SHARES = ("accuracy", "error_rate")  # metrics that are shares of examples or of their labels
BATCHES = 20  # of the test split, whose differences tell the margin
MIN_BATCHES = 5


def margin_name(metric: str) -> str:
    """The name, among metrics on test, of half the 95 % interval of ``metric``."""
    return f"{metric}_margin"


def metrics_on(task: Task, split: Split, batch_size: int, step: Callable[[Batch], Any]) -> dict[str, float]:
    """The metrics by name; on test with :func:`margin_name` of the objective, if it has a margin.

    Args:
        task: whose data and metrics.
        split: which split.
        batch_size: examples a batch at most.
        step: results of a batch for ``task.compute_metrics``.
    """
    size = task.steps(split, 1)
    if split == "test":
        batch_size = max(1, min(batch_size, -(-size // BATCHES)))
    outputs = [step(batch) for batch in task.batches(split, batch_size)]
    metrics = task.compute_metrics(outputs)
    if split != "test":
        return metrics
    half: float | None
    if task.metric in SHARES and not task.spec.per_token:
        half = wilson_margin(metrics[task.metric], size)
    else:
        half = margin_of_mean([task.compute_objective([each]) for each in outputs[: size // batch_size]])
    return metrics | ({} if half is None else {margin_name(task.metric): half})


def wilson_margin(share: float, count: int) -> float:
    """The larger side of the 95 % interval of a share of ``count`` independent examples.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(centre + half - share, share - centre + half)


def margin_of_mean(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of the mean of the metrics of batches of equal size, by Student's t distribution.

    This is the method of batch means: labels of one example, and neighbouring windows of one text, depend on each
    other, so they must be in the same batch. None of fewer than ``MIN_BATCHES``, and if one is undefined.
    """
    if len(values) < MIN_BATCHES or not all(map(math.isfinite, values)):
        return None
    from scipy import stats  # slow to import

    return float(stats.t.isf(LEVEL / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
