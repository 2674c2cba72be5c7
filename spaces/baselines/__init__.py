"""Classical baselines: what a model must beat to be worth its training. One file a family, under this contract.

A baseline takes the place of a network: it maps a batch to logits, or generates, so that the task's own ``eval_step``,
``compute_metrics`` and ``predict`` score and time it as they do a network. It is fitted on the training split within
seconds, with a fixed seed; larger data is subsampled. scikit-learn is imported inside functions, because it is slow to
import.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from spaces.evaluation import metrics_on
from spaces.tasks import IGNORE_INDEX, Batch, Split, Task

log = logging.getLogger(__name__)
MAX_ROWS = 20_000  # of the training split
EVAL_NUMBERS = 2**21  # inputs or logits of a batch of evaluation
REPEATS, TIMED_S = 20, 0.5  # of one example for its latency: at most so many, for about so long
LOW, HIGH = -30.0, 0.0  # logits of the classes that are not predicted, and of the predicted one


class Baseline(nn.Module, ABC):
    """A classical model in place of a network. It has no parameters to train and no gradients.

    Attributes:
        name: for people, such as "majority class"; unique among those of a task.
    """

    name: str

    @abstractmethod
    def fit(self, task: Task) -> None:
        """Learn from the training split; ``ValueError`` if the data does not suit this baseline."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits ``(batch, classes)``, or ``(batch, length, classes)`` for a prediction per token."""

    @torch.no_grad()
    def evaluate(self, task: Task, split: Split) -> dict[str, float]:
        """The task's metrics on a split."""
        numbers = max(task.spec.length * (task.spec.features or 1), math.prod(task.spec.answer_shape))
        batch_size = max(1, EVAL_NUMBERS // numbers)
        return metrics_on(task, split, batch_size, lambda batch: task.eval_step(self, batch))

    @torch.no_grad()
    def latency_ms(self, task: Task) -> float:
        """Milliseconds of inference on one example of full length: the minimum of some repeats on one thread."""
        from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

        example, times = task.sample(1), list[float]()
        with threadpool_limits(1):
            while len(times) < 2 or (len(times) < REPEATS and sum(times) < TIMED_S):
                began = time.perf_counter()
                task.predict(self, example)
                times.append(time.perf_counter() - began)
        return min(times) * 1e3


@dataclass(frozen=True)
class BaselineResult:
    """A baseline's metrics on validation and test, its latency and the seconds of fitting it."""

    name: str
    metrics: dict[str, float]
    test_metrics: dict[str, float]
    latency_ms: float
    fit_s: float

    @classmethod
    def of(cls, baseline: Baseline, task: Task) -> Self:
        """Fit, evaluate and time a baseline."""
        began = time.perf_counter()
        baseline.fit(task)
        fit_s = time.perf_counter() - began
        metrics, test_metrics = (baseline.evaluate(task, split) for split in ("validation", "test"))
        return cls(baseline.name, metrics, test_metrics, baseline.latency_ms(task), fit_s)


def training_rows(task: Task, limit: int = MAX_ROWS) -> Batch:
    """The labelled training examples, at most ``limit``: a random subset of fixed seed, in the order of the data."""
    examples = task.data("train")
    rows = torch.arange(examples.size)
    if examples.labels.dim() == 1:
        rows = rows[examples.labels != IGNORE_INDEX]
    if len(rows) > limit:
        log.info("a baseline learns from %d of %d training examples", limit, len(rows))
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:limit].sort().values]
    return examples.select(rows)


def one_hot_logits(labels: Tensor, classes: int) -> Tensor:
    """Logits whose largest is that of the label, ``(*labels.shape, classes)``."""
    return torch.full((*labels.shape, classes), LOW).scatter_(-1, labels[..., None], HIGH)
