"""The task's classical baselines beside the front: which is the best, and whether a model on the front beats it."""

from __future__ import annotations

from collections.abc import Sequence

from search.study.records import Objectives, Record
from spaces.baselines import BaselineResult


def describe_baselines(baselines: Sequence[BaselineResult], objectives: Objectives) -> str:
    """One line with the metric of each baseline on validation, and chance. Empty without baselines."""
    if not baselines:
        return ""
    metrics = ", ".join(f"{each.name} {each.metrics[objectives.metric]:.3f}" for each in baselines)
    return f"Baselines, {objectives.metric} on validation: {metrics}; chance {objectives.chance:.3f}."


def best_baseline(baselines: Sequence[BaselineResult], objectives: Objectives) -> BaselineResult | None:
    """The baseline of the best metric on validation; None without baselines."""
    return min(baselines, key=lambda each: objectives.loss(each.metrics[objectives.metric]), default=None)


def describe_defeat(members: Sequence[Record], baselines: Sequence[BaselineResult], objectives: Objectives) -> str:
    """That the best baseline is better on validation than all ``members`` of the front, and what to change.

    Empty if a member is as good as the best baseline, or if there are no members or no baselines.
    """
    best = best_baseline(baselines, objectives)
    found = [member.metric for member in members if member.metric is not None]
    if best is None or not found:
        return ""
    metric, model = best.metrics[objectives.metric], min(found, key=objectives.loss)
    if objectives.loss(model) <= objectives.loss(metric):
        return ""
    return (
        f"No model on the front beats {best.name} ({objectives.metric} {metric:.4f}): the best has {model:.4f}. "
        "Try more epochs, larger models, more training data, other tokens "
        "or, for texts, a trained checkpoint (+space=pretrained)."
    )
