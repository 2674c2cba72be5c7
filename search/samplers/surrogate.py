"""What to train next, by expected hypervolume a second: a model of every architecture's final metric and costs.

A Gaussian process over the settings of architectures learns from all curves, also from those that were cut short: a
partial curve is a noisy measurement of its end (:func:`search.acquisition.ends`), as in freeze-thaw optimisation
(Swersky et al. 2014, arXiv:1406.3896). A second one learns what arithmetic costs in milliseconds and in seconds of
training. New architectures and paused trials then compete for the next seconds by expected gain of hypervolume for each
of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from scipy.linalg import solve_triangular

from search.acquisition import BOLDNESS, Cells, ends
from search.pareto import Floats
from search.samplers.candidates import Candidate
from search.study.history import History
from spaces.architecture import pattern, settings
from spaces.dimensions import check_whole

LENGTH_SCALE = 1.2  # at which a setting counts before anything is learned: its whole range is 1
DIFFERENT = 2**0.5  # the distance of two different names
SCATTER = 0.03  # variance that settings don't explain, as a share of all
MOST_LEARNED_FROM = 300  # trials: time grows with their third power
FEWEST = 3  # complete trials before it has a say


class SurrogateSampler(RandomSampler):
    """Chooses what comes next; what it is not asked about is drawn at random.

    Args:
        candidates: unseen architectures that are looked at for each choice.
        seed: of random draws.
    """

    def __init__(self, *, candidates: int, seed: int | None = None) -> None:
        check_whole(1, candidates=candidates)
        super().__init__(seed=seed)
        self.candidates = candidates

    def choose(self, history: History, fresh: Sequence[Candidate], *, pauses: bool) -> int | Candidate | None:
        """The number of a paused trial to go on with, or one of ``fresh``; None where there is nothing.

        ``pauses`` says whether stopped trials may go on at all.
        """
        paused = np.flatnonzero(history.paused) if pauses else np.empty(0, dtype=np.intp)
        if not len(fresh) + len(paused):
            return None
        if np.count_nonzero(history.complete) < FEWEST and fresh:
            return fresh[0]
        speeds = rates(history, paused, fresh)
        best = int(np.argmax(speeds))
        return int(history.numbers[paused[best]]) if best < len(paused) else fresh[best - len(paused)]


def rates(history: History, paused: NDArray[np.intp], fresh: Sequence[Candidate]) -> Floats:
    """The expected gain ``(paused + fresh,)`` of hypervolume for each second that the (rest of the) training takes."""
    known = _informative(history)
    records = [history.record(int(number)) for number in history.numbers]
    rows = np.concatenate([known, paused])
    architectures = [*(records[row].architecture for row in rows), *(each.architecture for each in fresh)]
    flops = np.log([*(records[row].costs["flops"] for row in rows), *(each.costs["flops"] for each in fresh)])
    squares = _squares(architectures)
    n = len(known)
    own, deviation = ends(history, rows)
    span = abs(history.objectives.best - history.objectives.chance)
    scale = max(float(own[:n].std()), 0.05 * span)
    noise = (deviation[:n] / scale) ** 2
    kernel = _kernel(squares, _learned_scales(squares[:, :n, :n], (own[:n] - own[:n].mean()) / scale, noise))
    # A paused trial is among the known ones: what its own curve says beyond its settings counts for it too.
    itself = np.concatenate([known, paused, np.full(len(fresh), -1)])[:, None] == known
    mean, variance = _posterior(kernel[:, :n] + SCATTER * itself, kernel[:n, :n], own[:n], noise, scale)
    costs = np.empty((len(architectures), history.costs.shape[1]))
    for k, column in enumerate(history.costs.T):
        costs[:, k] = np.exp(_from_flops(np.log(column[known]), flops, kernel[:, :n]))
    costs[: len(rows)] = history.costs[rows]
    with np.errstate(divide="ignore"):
        an_epoch = np.log(history.seconds[known] / np.maximum(history.epochs[known], 1))
    epochs = np.array([each.get("train", {}).get("epochs", history.losses.shape[1]) for each in architectures])
    seconds = np.exp(_from_flops(an_epoch, flops, kernel[:, :n])) * epochs
    seconds[n : len(rows)] = history.seconds_left[paused]
    gains = Cells(history).expected_gain(costs[n:], mean[n:], BOLDNESS * np.sqrt(variance[n:]))
    return np.asarray(gains / np.maximum(seconds[n:], 1e-9))


def _informative(history: History) -> NDArray[np.intp]:
    """Rows to learn from: those with a finite metric and known costs, the longest trained first."""
    last = history.losses[np.arange(len(history)), np.maximum(history.epochs, 1) - 1]
    rows = np.flatnonzero((history.epochs > 0) & np.isfinite(last) & np.isfinite(history.costs).all(axis=1))
    return rows[np.argsort(-history.epochs[rows], kind="stable")][:MOST_LEARNED_FROM]


def _squares(architectures: Sequence[Mapping[str, Any]]) -> Floats:
    """``(settings, n, n)``: squared distances of each setting; of numbers on a logarithmic scale, its range being 1.

    Who lacks a setting, as a knob of another mechanism, stands in the middle of it: the mechanism tells them apart.
    """
    tables = [{"pattern": pattern(each), **settings(each)} for each in architectures]
    squares = []
    for name in sorted({name for table in tables for name in table}):
        values = [table.get(name) for table in tables]
        present = [value for value in values if value is not None]
        if len({repr(value) for value in present}) < 2:
            continue
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
            numbers = np.array([np.nan if value is None else float(value) for value in values])
            numbers = np.log(numbers) if np.nanmin(numbers) > 0 else numbers
            numbers = np.nan_to_num((numbers - np.nanmin(numbers)) / (np.nanmax(numbers) - np.nanmin(numbers)), nan=0.5)
            squares.append((numbers[:, None] - numbers) ** 2)
        else:
            names = np.array([repr(value) for value in values])
            squares.append((names[:, None] != names) * DIFFERENT**2)
    return np.array(squares).reshape(-1, len(tables), len(tables))


def _kernel(squares: Floats, scales: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * np.tensordot(1 / scales**2, squares, 1)))


def _learned_scales(squares: Floats, standard: Floats, noise: Floats) -> Floats:
    """How far each setting reaches, by the likelihood of what was seen: one after the other, a few times."""

    def unlikeliness(scales: Floats) -> float:
        covariance = _kernel(squares, scales) + np.diag(noise + SCATTER + 1e-6)
        lower = np.linalg.cholesky(covariance)
        whitened = solve_triangular(lower, standard, lower=True)
        far = np.log(scales / LENGTH_SCALE)
        return float(0.5 * whitened @ whitened + np.log(np.diag(lower)).sum() + 0.25 * far @ far)

    scales = np.full(len(squares), LENGTH_SCALE)
    if len(standard) < 8:
        return scales
    best = unlikeliness(scales)
    for _ in range(3):
        for k in range(len(scales)):
            for factor in (0.6, 1.6):
                tried = scales.copy()
                tried[k] = np.clip(tried[k] * factor, 0.3, 6.0)
                score = unlikeliness(tried)
                if score < best:
                    best, scales = score, tried
    return scales


def _posterior(across: Floats, kernel: Floats, seen: Floats, noise: Floats, scale: float) -> tuple[Floats, Floats]:
    """Mean and variance ``(all,)`` of final losses, ``across`` ``(all, seen)`` being their covariance with the seen."""
    lower = np.linalg.cholesky(kernel + np.diag(noise + SCATTER + 1e-6))
    whitened = solve_triangular(lower, across.T, lower=True)
    mean = seen.mean() + scale * (whitened.T @ solve_triangular(lower, (seen - seen.mean()) / scale, lower=True))
    variance = scale**2 * np.maximum(1.0 + SCATTER - (whitened**2).sum(axis=0), 1e-5)
    return np.asarray(mean), np.asarray(variance)


def _from_flops(seen: Floats, flops: Floats, across: Floats) -> Floats:
    """``(all,)``: a quantity on a log scale, by the arithmetic ``flops`` ``(all,)`` and the likeness to those seen."""
    n = len(seen)
    slope = 1.0
    if np.ptp(flops[:n]) > 0:
        slope = float(np.clip(np.polyfit(flops[:n], seen, 1)[0], 0.2, 1.5))
    rest = seen - slope * flops[:n]
    scale = max(float(rest.std()), 0.05)
    weights = np.linalg.solve(across[:n] + 0.003 * np.eye(n), (rest - rest.mean()) / scale)
    return np.asarray(slope * flops + rest.mean() + scale * across @ weights)
