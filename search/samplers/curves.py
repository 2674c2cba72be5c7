"""Final losses from learning curves: those of complete trials, and extrapolations of partial curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats
from search.study.history import History

# As shares of the metric's range, from chance to best:
CURVE_BANDWIDTH = 0.15  # bandwidth of the Gaussian kernel on losses at the same epoch
MIN_STD = 0.02  # lower bound of the standard deviation of an extrapolated final loss
JUMP_WEIGHT = 1.0  # of the prior that a curve may still rise by any amount, counted in complete trials


def extrapolate_final_loss(
    history: History, rows: NDArray[np.intp], similarity: Floats | None = None
) -> tuple[Floats, Floats]:
    """Mean and standard deviation ``(rows,)`` of the final losses of trials, each from its own learning curve.

    With loss ``y_t`` after epoch ``t`` of ``T``, and complete trials ``i`` with losses ``y_it`` and final ones
    ``y_iT``, the gain ``g = y_T - y_t`` is distributed as the mixture of the gains ``y_iT - y_it`` with weights
    ``w_i = similarity_i * exp(-(y_it - y_t)^2 / (2 CURVE_BANDWIDTH^2))`` and of a uniform distribution from the best
    possible loss to ``y_t`` with weight ``w_0 = JUMP_WEIGHT * (1 - t / T)``: that of a curve unlike all seen so far.
    The mean is ``y_t + E[g]``, the variance ``Var[g] + MIN_STD^2``.

    A complete trial has its final loss and standard deviation 0; a trial without a curve NaN and infinity.

    Args:
        history: the study.
        rows: of the trials.
        similarity: ``(rows, trials)`` of settings, 0 to 1; by default 1.
    """
    span = abs(history.objectives.best - history.objectives.chance)
    ideal = history.objectives.ideal[0]
    losses, epochs, complete = history.losses, history.epochs, history.complete
    mean, std = np.full(len(rows), np.nan), np.full(len(rows), np.inf)
    finished = complete[rows]
    mean[finished], std[finished] = history.finals[rows[finished]], 0.0
    planned = history.planned
    for epoch in np.unique(epochs[rows[~finished]]):
        at = np.flatnonzero(~finished & (epochs[rows] == epoch))
        if epoch == 0:
            continue
        known = np.flatnonzero(complete & np.isfinite(losses[:, epoch - 1]))
        current = losses[rows[at], epoch - 1][:, None]
        before = losses[known, epoch - 1]
        gains = (history.finals[known] - before)[None, :]
        weights = np.exp(-0.5 * ((before - current) / (CURVE_BANDWIDTH * span)) ** 2)
        if similarity is not None:
            weights = weights * similarity[np.ix_(at, known)]
        prior = JUMP_WEIGHT * np.maximum(1 - epoch / planned[rows[at]], 0.01)[:, None]
        jump = np.minimum(ideal - current, 0.0)
        total = weights.sum(axis=1, keepdims=True) + prior
        gain = ((weights * gains).sum(axis=1, keepdims=True) + prior * jump / 2) / total
        second = ((weights * gains**2).sum(axis=1, keepdims=True) + prior * jump**2 / 3) / total
        mean[at] = (current + gain)[:, 0]
        std[at] = np.sqrt(np.maximum(second - gain**2, 0.0) + (MIN_STD * span) ** 2)[:, 0]
    return mean, std
