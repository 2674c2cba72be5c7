"""How much hypervolume a trial may still add, and how fast: what pausing, resuming and choosing are decided by.

A partial curve is taken as a noisy measurement of its end: the metric now, plus what finished trials gained from the
same epoch on, those that were at a similar metric weighing most. The costs being known, the hypervolume that a trial
would add is a piecewise linear function of its final metric alone, so its expectation needs no sampling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from search.pareto import Floats
from search.study.history import History

SIMILAR = 0.15  # of the way from chance to best: trials that are so far apart weigh 0.6
LEAST_DEVIATION = 0.02  # of the way from chance to best: no end is known better than that before it is reached
BOLDNESS = 2.0  # the factor on deviations where it is decided: what speaks against all seen so far is tried sooner
LATTICE = {2: 24, 3: 9}  # cells along each of so many costs


def ends(history: History, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Mean and standard deviation ``(rows,)`` of the final losses of trials, by their own curves alone.

    Of a complete trial it is its final loss, with deviation 0; of one without a curve, NaN and infinite. Where nobody
    finished, nothing is known of gains: the loss now, give or take half the way from chance to best.
    """
    span = abs(history.objectives.best - history.objectives.chance)
    losses, epochs, complete = history.losses, history.epochs, history.complete
    mean, deviation = np.full(len(rows), np.nan), np.full(len(rows), np.inf)
    for place, row in enumerate(rows):
        epoch = epochs[row]
        if complete[row]:
            mean[place], deviation[place] = history.finals[row], 0.0
        elif epoch:
            now = losses[row, epoch - 1]
            then = losses[:, epoch - 1]
            finished = complete & np.isfinite(then)
            if not finished.any():
                mean[place], deviation[place] = now, 0.5 * span
                continue
            gains = history.finals[finished] - then[finished]
            weights = np.exp(-0.5 * ((then[finished] - now) / (SIMILAR * span)) ** 2) + 0.05
            gain = np.average(gains, weights=weights)
            variance = np.average((gains - gain) ** 2, weights=weights)
            many = weights.sum() ** 2 / (weights**2).sum()
            mean[place] = now + gain
            deviation[place] = np.sqrt(variance * (1 + 2 / many) + (LEAST_DEVIATION * span) ** 2)
    return mean, deviation


class Cells:
    """The box of costs in cells, and in each the loss to beat: the lowest among complete trials that cost no more.

    With one cost the cells lie between those of the trials, and all that follows is exact. With more they are a fixed
    lattice, judged at its centres: exact cells would be as many as the front has members, to the power of the costs.
    """

    def __init__(self, history: History) -> None:
        aims = history.objectives
        self.reference, self.ideal = np.array(aims.reference), np.array(aims.ideal)
        losses, costs = history.finals[history.complete], history.costs[history.complete]
        inside = (losses < self.reference[0]) & (costs < self.reference[1:]).all(axis=1)
        losses, costs = losses[inside], costs[inside]
        if costs.shape[1] == 1:
            order = np.argsort(costs[:, 0], kind="stable")
            self.edges = [np.concatenate([self.ideal[1:], costs[order, 0], self.reference[1:]])]
            lowest = np.minimum.accumulate(np.append(self.reference[0], losses[order]))
            self.bars = lowest
        else:
            each = LATTICE.get(costs.shape[1], 4)
            ends = zip(self.ideal[1:], self.reference[1:], strict=True)
            self.edges = [np.linspace(low, high, each + 1) for low, high in ends]
            middles = [(edge[:-1] + edge[1:]) / 2 for edge in self.edges]
            first = [np.searchsorted(middle, column) for middle, column in zip(middles, costs.T, strict=True)]
            bars = np.full((each + 1,) * costs.shape[1], self.reference[0])
            np.minimum.at(bars, tuple(first), losses)
            for axis in range(costs.shape[1]):
                bars = np.minimum.accumulate(bars, axis=axis)
            self.bars = bars[(slice(each),) * costs.shape[1]].ravel()

    def volumes(self, costs: Floats) -> Floats:
        """``(n, cells)``: the part of each cell that trials of ``costs`` ``(n, costs)`` would cost no more than."""
        volumes = np.ones((len(costs), 1))
        for k, edge in enumerate(self.edges):
            widths = np.clip(edge[1:] - np.maximum(edge[:-1], costs[:, k : k + 1]), 0.0, None)
            volumes = (volumes[:, :, None] * widths[:, None, :]).reshape(len(costs), -1)
        return volumes

    @property
    def hypervolume(self) -> float:
        """What the complete trials dominate, as a share of the whole box."""
        volumes = self.volumes(self.ideal[None, 1:])[0]
        return float((volumes * (self.reference[0] - self.bars)).sum() / np.prod(self.reference - self.ideal))

    def expected_gain(self, costs: Floats, mean: Floats, deviation: Floats) -> Floats:
        """The hypervolume ``(n,)`` that trials are expected to add, as a share of the whole box.

        Args:
            costs: ``(n, costs)`` of the trials.
            mean: ``(n,)`` of their final losses, taken as normally distributed.
            deviation: ``(n,)``, above 0.
        """
        below = _expected_below(self.bars, mean, deviation)
        below -= _expected_below(self.ideal[:1], mean, deviation)  # nothing is better than the best there can be
        return np.asarray((self.volumes(costs) * below).sum(axis=1) / np.prod(self.reference - self.ideal))


def _expected_below(bars: Floats, mean: Floats, deviation: Floats) -> Floats:
    """By how much ``(n, bars)`` normally distributed losses are expected to lie below each bar; above it is 0."""
    beaten = (bars - mean[:, None]) / deviation[:, None]
    return deviation[:, None] * (beaten * ndtr(beaten) + np.exp(-0.5 * beaten**2) / np.sqrt(2 * np.pi))
