"""The epochs of a training that suit a time budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median

TRAININGS = 8  # full trainings of a middle architecture that a budget should be enough for
FEW_TRAININGS = 4  # so many, rather than trainings of less than half the epochs, which are far from converged


@dataclass(frozen=True)
class EpochPlan:
    """How many epochs the trainings of a study have, and why."""

    epochs: int
    message: str  # empty if they are those of the space


def middle_epoch_s(smallest_s: float, largest_s: Sequence[float]) -> float:
    """Seconds of an epoch of a middle architecture: between the smallest one and the largest one of each mechanism."""
    return geometric_mean([smallest_s, median(largest_s)]) if largest_s else smallest_s


def plan_epochs(epochs: int, epoch_s: float, left_s: float, *, workers: int = 1) -> EpochPlan:
    """The epochs with which ``TRAININGS`` trainings fit into ``left_s`` seconds: at least 1, at most ``epochs``.

    If that is less than half of ``epochs``, ``FEW_TRAININGS`` trainings of up to half the epochs.

    Args:
        epochs: what the space says.
        epoch_s: seconds of an epoch of a middle architecture.
        left_s: seconds left for training.
        workers: that train side by side.
    """
    left_s = max(0.0, left_s)
    total_s = workers * left_s
    left = f"the {left_s:.0f} s left" + (f" of {workers} workers" if workers > 1 else "")
    if TRAININGS * epochs * epoch_s <= total_s:
        return EpochPlan(epochs, "")
    many, few = (math.floor(total_s / (count * epoch_s)) for count in (TRAININGS, FEW_TRAININGS))
    fitting = max(1, many, min(few, math.ceil(epochs / 2)))
    speed = f"an epoch of a middle architecture takes about {epoch_s:.2g} s"
    fewer = f"train on fewer examples (task.train=...), at most {total_s / (TRAININGS * epoch_s):.1%} of them"
    if epoch_s > left_s:
        remedy = f"give more time (budget=...), or {fewer}" if left_s else "give more time (budget=...)"
        return EpochPlan(fitting, f"No trial is likely to finish: {speed}, and {left_s:.0f} s are left; {remedy}.")
    if fitting < epochs:
        fits = f"so that about {max(1, round(total_s / (fitting * epoch_s)))} trainings fit into {left}"
        return EpochPlan(fitting, f"train.epochs is {fitting} instead of {epochs}, {fits}: {speed}.")
    only = f"about {total_s / epoch_s:.0f} trainings fit into {left}"
    return EpochPlan(fitting, f"Only {only}: {speed}; to have {TRAININGS}, {fewer}.")
