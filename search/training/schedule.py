"""Learning-rate schedules as multiples of the peak learning rate.

Each is a function of the step and of the number of steps of the whole training. None depends on when a trial is paused
or stopped, so trials are comparable at the same epoch, and a resumed training continues on the same schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial


def constant(progress: float, decay: float) -> float:
    """The peak learning rate until the end."""
    return 1.0


def linear(progress: float, decay: float) -> float:
    """Linear decay to 0."""
    return 1.0 - progress


def cosine(progress: float, decay: float) -> float:
    """Half a cosine to 0 (Loshchilov and Hutter, "SGDR", 2017, equation 5, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def wsd(progress: float, decay: float) -> float:
    """Constant, then linear decay to 0 in the last share ``decay`` (warm-up-stable-decay; Hu et al., "MiniCPM", 2024).

    MiniCPM decays exponentially; linear decay is from Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations", 2024.
    """
    return min(1.0, (1.0 - progress) / decay)


SCHEDULES: Mapping[str, Callable[[float, float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "wsd": wsd,
}


def learning_rate_factor(name: str, total_steps: int, *, warmup: float, decay: float) -> Callable[[int], float]:
    """The factor of the peak learning rate at each optimizer step, counted from 0: linear warm-up, then the schedule.

    The schedule begins at the last step of the warm-up, where the factor is 1, and is 0 after the last step.

    Args:
        name: of the schedule.
        total_steps: of the whole training.
        warmup: share of ``total_steps``.
        decay: of ``wsd``: share of the steps after the warm-up.
    """
    return partial(_factor, max(1, round(warmup * total_steps)), total_steps, SCHEDULES[name], decay)


def _factor(warmup: int, total: int, schedule: Callable[[float, float], float], decay: float, step: int) -> float:
    if step + 1 <= warmup:
        return (step + 1) / warmup
    return schedule(min(1.0, (step + 1 - warmup) / (total + 1 - warmup)), decay)
