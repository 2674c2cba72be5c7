"""Expected hypervolume improvement (EHVI) of trials whose costs are known: decides pausing, resuming and sampling.

Emmerich, Giannakoglou and Naujoks, "Single- and Multiobjective Evolutionary Optimization Assisted by Gaussian Random
Field Metamodels", 2006. A partial learning curve counts as a noisy observation of its final value: the loss now plus
the gain that complete trials made from the same epoch on, weighted by how similar their loss was there. Since the
costs are known, the hypervolume that a trial adds is a piecewise linear function of its final loss alone, so EHVI has
a closed form and needs no sampling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from search.pareto import Floats
from search.study.history import History

# As shares of the metric's range, from chance to best:
CURVE_BANDWIDTH = 0.15  # bandwidth of the Gaussian kernel on losses at the same epoch
MIN_STD = 0.02  # lower bound of the standard deviation of an extrapolated final loss
PRIOR_STD = 0.5  # standard deviation where no complete trial shows how curves go on
BASE_WEIGHT = 0.05  # of each complete trial, however different its loss was at the same epoch
STD_SCALE = 2.0  # factor on standard deviations in decisions: more exploration, as beta in an upper confidence bound
GRID_CELLS = {2: 24, 3: 9}  # cells along each cost axis, by the number of costs; 4 for more than 3 costs


def extrapolate_final_loss(history: History, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Mean and standard deviation ``(rows,)`` of the final losses of trials, each from its own learning curve.

    With loss ``y_t`` after epoch ``t``, and complete trials ``i`` with losses ``y_it`` and final losses ``y_iT``::

        mean = y_t + sum_i w_i (y_iT - y_it) / sum_i w_i,  w_i = exp(-(y_it - y_t)^2 / (2 CURVE_BANDWIDTH^2)) + 0.05

    The variance is the weighted variance of the gains, times ``1 + 2 / n`` with the effective sample size ``n``, plus
    ``MIN_STD^2``. A complete trial has its final loss and standard deviation 0; a trial without a curve NaN and
    infinity. If no complete trial was evaluated at epoch ``t``, the mean is ``y_t`` and the deviation ``PRIOR_STD``.
    """
    span = abs(history.objectives.best - history.objectives.chance)
    losses, epochs, complete = history.losses, history.epochs, history.complete
    mean, std = np.full(len(rows), np.nan), np.full(len(rows), np.inf)
    for i, row in enumerate(rows):
        epoch = epochs[row]
        if complete[row]:
            mean[i], std[i] = history.finals[row], 0.0
        elif epoch:
            current = losses[row, epoch - 1]
            at_epoch = losses[:, epoch - 1]
            known = complete & np.isfinite(at_epoch)
            if not known.any():
                mean[i], std[i] = current, PRIOR_STD * span
                continue
            gains = history.finals[known] - at_epoch[known]
            weights = np.exp(-0.5 * ((at_epoch[known] - current) / (CURVE_BANDWIDTH * span)) ** 2) + BASE_WEIGHT
            gain = np.average(gains, weights=weights)
            variance = np.average((gains - gain) ** 2, weights=weights)
            sample_size = weights.sum() ** 2 / (weights**2).sum()
            mean[i] = current + gain
            std[i] = np.sqrt(variance * (1 + 2 / sample_size) + (MIN_STD * span) ** 2)
    return mean, std


class BoxDecomposition:
    """The reference box of the costs in cells, each with the lowest loss among complete trials that cost no more.

    With one cost the cells lie between the costs of the trials, and everything computed from them is exact. With more
    costs they are a fixed grid, evaluated at the cells' centres: an exact decomposition would have as many cells as
    the front has members, to the power of the number of costs.

    Attributes:
        best_loss: ``(cells,)``: a new trial in a cell must have a lower loss than this to add hypervolume.
    """

    def __init__(self, history: History) -> None:
        objectives = history.objectives
        self.reference, self.ideal = np.array(objectives.reference), np.array(objectives.ideal)
        losses, costs = history.finals[history.complete], history.costs[history.complete]
        inside = (losses < self.reference[0]) & (costs < self.reference[1:]).all(axis=1)
        losses, costs = losses[inside], costs[inside]
        if costs.shape[1] == 1:
            order = np.argsort(costs[:, 0], kind="stable")
            self.edges = [np.concatenate([self.ideal[1:], costs[order, 0], self.reference[1:]])]
            self.best_loss = np.minimum.accumulate(np.append(self.reference[0], losses[order]))
        else:
            cells = GRID_CELLS.get(costs.shape[1], 4)
            bounds = zip(self.ideal[1:], self.reference[1:], strict=True)
            self.edges = [np.linspace(low, high, cells + 1) for low, high in bounds]
            centres = [(edge[:-1] + edge[1:]) / 2 for edge in self.edges]
            first = [np.searchsorted(centre, column) for centre, column in zip(centres, costs.T, strict=True)]
            best_loss = np.full((cells + 1,) * costs.shape[1], self.reference[0])
            np.minimum.at(best_loss, tuple(first), losses)
            for axis in range(costs.shape[1]):
                best_loss = np.minimum.accumulate(best_loss, axis=axis)
            self.best_loss = best_loss[(slice(cells),) * costs.shape[1]].ravel()

    def cell_volumes(self, costs: Floats) -> Floats:
        """``(n, cells)``: of each cell, the volume in which trials of ``costs`` ``(n, costs)`` cost no more."""
        volumes = np.ones((len(costs), 1))
        for k, edge in enumerate(self.edges):
            widths = np.clip(edge[1:] - np.maximum(edge[:-1], costs[:, k : k + 1]), 0.0, None)
            volumes = (volumes[:, :, None] * widths[:, None, :]).reshape(len(costs), -1)
        return volumes

    @property
    def hypervolume(self) -> float:
        """Hypervolume of the complete trials, as a share of the reference box."""
        volumes = self.cell_volumes(self.ideal[None, 1:])[0]
        return float((volumes * (self.reference[0] - self.best_loss)).sum() / np.prod(self.reference - self.ideal))

    def expected_hypervolume_improvement(self, costs: Floats, mean: Floats, std: Floats) -> Floats:
        """EHVI ``(n,)`` of trials, as a share of the reference box: ``sum_c v_c (EI(b_c) - EI(ideal)) / box``.

        ``v_c`` is the cell's volume for the trial, ``b_c`` its best loss, and ``EI(b) = E[max(b - y, 0)]``.

        Args:
            costs: ``(n, costs)`` of the trials.
            mean: ``(n,)`` of their final losses ``y``, which are taken as normally distributed.
            std: ``(n,)``, above 0.
        """
        improvement = _expected_improvement(self.best_loss, mean, std)
        improvement -= _expected_improvement(self.ideal[:1], mean, std)  # no loss is below the ideal one
        return np.asarray((self.cell_volumes(costs) * improvement).sum(axis=1) / np.prod(self.reference - self.ideal))


def _expected_improvement(best_loss: Floats, mean: Floats, std: Floats) -> Floats:
    """``(n, cells)``: ``E[max(b - y, 0)] = std (z Phi(z) + phi(z))`` with ``z = (b - mean) / std``."""
    z = (best_loss - mean[:, None]) / std[:, None]
    return std[:, None] * (z * ndtr(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
