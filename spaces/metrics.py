"""Metrics of classification, computed from the predictions on a whole split. Any may be the objective of a task.

A new metric is one entry of ``METRICS``. All average over the classes that occur among the labels of the split; a class
that is missing there counts for none of them, even if it is predicted. What is then undefined is NaN. scikit-learn is
imported inside functions, because it is slow to import.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from spaces.batch import IGNORE_INDEX

MAX_SCORED = 100  # classes up to which the logits of a whole split are kept where the objective does not need them


class Predictions(NamedTuple):
    """The labelled predictions of a batch or a split."""

    labels: Tensor  # (predictions,)
    classes: Tensor  # (predictions,), the most probable ones
    logits: Tensor | None  # (predictions, classes); None if they are not kept

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, *, scored: bool) -> Self:
        """From logits ``(..., classes)`` and labels ``(...)``; ``scored`` if the logits are to be kept."""
        labelled = labels != IGNORE_INDEX
        kept = logits.detach()[labelled]
        return cls(labels[labelled], kept.argmax(-1), kept if scored else None)

    @classmethod
    def concatenated(cls, parts: Sequence[Predictions], *, scored: bool) -> Self:
        """Those of all batches, in the memory of the CPU; with logits if they are kept, and ``scored``."""
        labels = torch.cat([part.labels for part in parts]).cpu()
        classes = torch.cat([part.classes for part in parts]).cpu()
        logits = [part.logits for part in parts if part.logits is not None]
        return cls(labels, classes, torch.cat(logits).cpu() if scored and logits else None)


def accuracy(predictions: Predictions) -> float:
    """The share of correct predictions."""
    return (predictions.classes == predictions.labels).double().mean().item()


def error_rate(predictions: Predictions) -> float:
    """The share of wrong predictions."""
    return 1 - accuracy(predictions)


def balanced_accuracy(predictions: Predictions) -> float:
    """The mean over classes of the recall (Brodersen et al., "The balanced accuracy", 2010)."""
    from sklearn.metrics import recall_score

    labels, classes = predictions.labels.numpy(), predictions.classes.numpy()
    return float(recall_score(labels, classes, labels=_present(predictions), average="macro", zero_division=0.0))


def macro_f1(predictions: Predictions) -> float:
    """The mean over classes of F1, the harmonic mean of precision and recall; 0 of a class never predicted."""
    from sklearn.metrics import f1_score

    labels, classes = predictions.labels.numpy(), predictions.classes.numpy()
    return float(f1_score(labels, classes, labels=_present(predictions), average="macro", zero_division=0.0))


def auroc(predictions: Predictions) -> float:
    """The mean over classes of the area under the ROC curve of that class against the rest.

    By the probabilities of the class (Fawcett, "An introduction to ROC analysis", 2006). NaN if all labels are of one
    class, or if a probability is NaN.
    """
    from scipy.stats import rankdata

    assert predictions.logits is not None
    present, probabilities = _present(predictions), predictions.logits.double().softmax(-1)
    if len(present) < 2 or probabilities.isnan().any():
        return math.nan
    # The area is the share of pairs of a positive and a negative example that are in order, ties counting half: the
    # rank-sum statistic. Of all classes at once, as every trial has this metric of two splits.
    positive = predictions.labels.numpy()[:, None] == present
    ranks, counts = rankdata(probabilities.numpy()[:, present], axis=0), positive.sum(0)
    in_order = (ranks * positive).sum(0) - counts * (counts + 1) / 2
    return float((in_order / (counts * (len(positive) - counts))).mean())


def _present(predictions: Predictions) -> list[int]:
    """The classes that occur among the labels."""
    return list(predictions.labels.unique().tolist())


@dataclass(frozen=True)
class Metric:
    """A metric as an objective."""

    value: Callable[[Predictions], float]
    direction: Literal["maximize", "minimize"] = "maximize"
    best: float = 1.0  # of perfect predictions
    from_logits: bool = False  # whether the predicted classes do not suffice


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(accuracy),
    "balanced_accuracy": Metric(balanced_accuracy),
    "macro_f1": Metric(macro_f1),
    "auroc": Metric(auroc, from_logits=True),
    "error_rate": Metric(error_rate, direction="minimize", best=0.0),
}


def keeps_logits(objective: str, classes: int) -> bool:
    """Whether the logits of a split are to be kept: for an objective that needs them, or if the classes are few."""
    return classes <= MAX_SCORED or (objective in METRICS and METRICS[objective].from_logits)


def metrics_of(parts: Sequence[Predictions], names: Iterable[str]) -> dict[str, float]:
    """The metrics ``names`` of the predictions on all batches of a split, without those that are undefined."""
    chosen = {name: METRICS[name] for name in names}
    predictions = Predictions.concatenated(parts, scored=any(metric.from_logits for metric in chosen.values()))
    if predictions.logits is None:
        chosen = {name: metric for name, metric in chosen.items() if not metric.from_logits}
    values = {name: metric.value(predictions) for name, metric in chosen.items()}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def majority_share(labels: Iterable[Hashable]) -> float:
    """The share of the most frequent label: the accuracy of always predicting the majority class."""
    counts = Counter(labels)
    return max(counts.values()) / counts.total()


def chance_level(name: str, labels: Tensor) -> float:
    """The metric of always predicting the most frequent of ``labels``, with the same probabilities for all examples."""
    labels = labels[labels != IGNORE_INDEX]
    majority, logits = labels.mode().values, torch.zeros(1, int(labels.max()) + 1)
    return METRICS[name].value(Predictions(labels, majority.expand(len(labels)), logits.expand(len(labels), -1)))
