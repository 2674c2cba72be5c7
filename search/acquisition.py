"""Expected hypervolume improvement (EHVI) of trials whose costs are known: decides pausing, resuming and sampling.

Emmerich, Giannakoglou and Naujoks, "Single- and Multiobjective Evolutionary Optimization Assisted by Gaussian Random
Field Metamodels", 2006. A partial learning curve counts as a noisy observation of its final value: the loss now plus
the gain that complete trials made from the same epoch on, weighted by how similar their loss was there. Since the
costs are known, the hypervolume that a trial adds is a piecewise linear function of its final loss alone, so EHVI has
a closed form and needs no sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from search.pareto import Floats
from search.study.history import History

STD_SCALE = 2.0  # factor on standard deviations in decisions: more exploration, as beta in an upper confidence bound
GRID_CELLS = {2: 24, 3: 9}  # cells along each cost axis, by the number of costs; 4 for more than 3 costs
BOUND_CELLS = {1: 8, 2: 4, 3: 3}  # the same for upper bounds, at most; 2 for more than 3 costs


class BoxDecomposition:
    """The reference box of the costs in cells, each with the lowest loss among complete trials that cost no more.

    With one cost the cells lie between the costs of the front, and everything computed from them is exact. With more
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
            lowest = np.minimum.accumulate(np.append(self.reference[0], losses[order]))
            members = np.flatnonzero(np.diff(lowest))  # of the front: where it falls
            self.edges = [np.concatenate([self.ideal[1:], costs[order[members], 0], self.reference[1:]])]
            self.best_loss = np.append(self.reference[0], lowest[members + 1])
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
        return _volumes(self.edges, costs)

    def upper_bound(self, costs: Floats, mean: Floats, std: Floats) -> Floats:
        """``(n,)``: what EHVI does not exceed with any standard deviation up to ``std``.

        The arguments are those of :meth:`expected_hypervolume_improvement`. Adjacent cells are merged to
        ``BOUND_CELLS``, with the highest of their losses, but not a higher one than in the trial's own cell. ``EI(b) -
        EI(ideal)`` increases with the standard deviation if the mean is nearer to ``b`` than to the ideal loss;
        otherwise it decreases from ``b - max(mean, ideal)``.
        """
        shape = [len(edge) - 1 for edge in self.edges]
        cells = [
            np.clip(np.searchsorted(edge, column, side="right") - 1, 0, count - 1)
            for edge, column, count in zip(self.edges, costs.T, shape, strict=True)
        ]
        own = self.best_loss[np.ravel_multi_index(cells, shape)]
        most = BOUND_CELLS.get(len(shape), 2)
        starts = [np.unique(np.arange(most) * count // most) for count in shape]
        edges = [np.append(edge[start], edge[-1]) for edge, start in zip(self.edges, starts, strict=True)]
        merged = self.best_loss.reshape(shape)[np.ix_(*starts)].ravel()  # losses do not rise with costs
        best_loss, ideal = np.minimum(merged, own[:, None]), self.ideal[0]
        improvement = _expected_improvement(best_loss, mean, std)
        improvement -= _expected_improvement(self.ideal[:1], mean, std)
        certain = best_loss - np.maximum(mean, ideal)[:, None]
        improvement = np.where(2 * mean[:, None] >= best_loss + ideal, improvement, certain)
        return np.asarray((_volumes(edges, costs) * improvement).sum(axis=1) / np.prod(self.reference - self.ideal))

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


def _volumes(edges: Sequence[Floats], costs: Floats) -> Floats:
    """``(n, cells)``: see :meth:`BoxDecomposition.cell_volumes`; ``edges`` are those of the cells along each cost."""
    volumes = np.ones((len(costs), 1))
    for k, edge in enumerate(edges):
        widths = np.clip(edge[1:] - np.maximum(edge[:-1], costs[:, k : k + 1]), 0.0, None)
        volumes = (volumes[:, :, None] * widths[:, None, :]).reshape(len(costs), -1)
    return volumes


def _expected_improvement(best_loss: Floats, mean: Floats, std: Floats) -> Floats:
    """``E[max(b - y, 0)] = std (z Phi(z) + phi(z))``, ``z = (b - mean) / std``, ``(n, cells)``.

    ``best_loss`` is ``(cells,)``, or ``(n, cells)``.
    """
    z = (best_loss - mean[:, None]) / std[:, None]
    density = np.square(z)
    density *= -0.5
    np.exp(density, out=density)
    density /= np.sqrt(2 * np.pi)
    z *= ndtr(z)
    z += density
    z *= std[:, None]
    return z
