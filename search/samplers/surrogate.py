"""Bayesian optimisation by expected hypervolume improvement (EHVI) per second: what to train next.

A Gaussian process (GP) over the settings of architectures predicts final losses. It learns from all learning curves: a
partial curve is a noisy observation of its final value (:func:`search.acquisition.extrapolate_final_loss`), as in
freeze-thaw Bayesian optimisation (Swersky et al. 2014, arXiv:1406.3896). Costs and seconds of training are predicted
by regression on FLOPs with a GP on the residuals. Unseen architectures and paused trials then compete by EHVI per
second of their remaining training (EI per second: Snoek et al. 2012, arXiv:1206.2944, section 3.2). In a run with a
time budget the weight of the seconds falls to nothing as the budget is used up, so that large architectures are not
left out (EI-cool: Lee et al. 2020, arXiv:2003.10870, section 3.2), and what cannot finish in time is not chosen.

Limits: O(n^3) time in the number of trials, of which at most ``MAX_TRIALS`` are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from scipy.linalg import solve_triangular

from search.acquisition import STD_SCALE, BoxDecomposition, extrapolate_final_loss
from search.pareto import Floats
from search.samplers.candidates import Candidate
from search.study.history import History
from spaces.architecture import pattern, settings
from spaces.dimensions import check_whole

LENGTHSCALE = 1.2  # prior median; each numerical setting is scaled to a range of 1
LENGTHSCALE_BOUNDS = (0.3, 6.0)
CATEGORY_DISTANCE = 2**0.5  # between any two values of a categorical setting
NUGGET = 0.03  # variance that settings do not explain, as a share of the prior variance
JITTER = 1e-6  # for the Cholesky decomposition
MAX_TRIALS = 300
MIN_COMPLETE = 3  # complete trials before the model is used
MIN_FIT = 8  # trials before length scales are fitted
TOO_LONG = 1e-6  # factor on the value of what takes longer than the time left


class SurrogateSampler(RandomSampler):
    """Chooses the next trial by EHVI per second; parameters that Optuna asks it for are drawn at random.

    Args:
        candidates: how many unseen architectures are evaluated for each choice.
        seed: of random draws.
    """

    def __init__(self, *, candidates: int, seed: int | None = None) -> None:
        check_whole(1, candidates=candidates)
        super().__init__(seed=seed)
        self.candidates = candidates

    def choose(self, history: History, unseen: Sequence[Candidate], *, pauses: bool) -> int | Candidate | None:
        """The number of a paused trial to resume, or one of ``unseen`` to start; None if there are neither.

        ``pauses`` says whether paused trials may be resumed.
        """
        paused = np.flatnonzero(history.paused) if pauses else np.empty(0, dtype=np.intp)
        if not len(unseen) + len(paused):
            return None
        if np.count_nonzero(history.complete) < MIN_COMPLETE and unseen:
            return unseen[0]
        best = int(np.argmax(ehvi_per_second(history, paused, unseen)))
        return int(history.numbers[paused[best]]) if best < len(paused) else unseen[best - len(paused)]


def ehvi_per_second(history: History, paused: NDArray[np.intp], unseen: Sequence[Candidate]) -> Floats:
    """EHVI ``(paused + unseen,)`` per second of remaining training, of paused rows and unseen architectures.

    The seconds are raised to the power ``1 - history.budget_used``.
    """
    train = _training_rows(history)
    n = len(train)
    rows = np.concatenate([train, paused])
    records = history.records()
    architectures = [*(records[row].architecture for row in rows), *(each.architecture for each in unseen)]
    log_flops = np.log([*(records[row].costs["flops"] for row in rows), *(each.costs["flops"] for each in unseen)])

    y, y_std = (each[:n] for each in extrapolate_final_loss(history, rows))
    span = abs(history.objectives.best - history.objectives.chance)
    scale = max(float(y.std()), 0.05 * span)
    y_standardized, noise = (y - y.mean()) / scale, (y_std / scale) ** 2
    squared_distances = _squared_distances(architectures)
    lengthscales = _fit_lengthscales(squared_distances[:, :n, :n], y_standardized, noise)
    kernel = _rbf_kernel(squared_distances, lengthscales)[:, :n]
    # An observation of a trial also tells what its settings do not explain: the nugget is shared with itself alone.
    same_trial = np.concatenate([train, paused, np.full(len(unseen), -1)])[:, None] == train
    mean, variance = _posterior(kernel + NUGGET * same_trial, kernel[:n], y_standardized, noise)
    mean, variance = y.mean() + scale * mean, scale**2 * variance

    costs = np.empty((len(architectures), history.costs.shape[1]))
    for k, column in enumerate(history.costs.T):
        costs[:, k] = np.exp(_predict_from_flops(np.log(column[train]), log_flops, kernel))
    costs[: len(rows)] = history.costs[rows]
    with np.errstate(divide="ignore"):
        log_epoch_s = np.log(history.seconds[train] / np.maximum(history.epochs[train], 1))
    epochs = np.array([each.get("train", {}).get("epochs", history.losses.shape[1]) for each in architectures])
    seconds = np.exp(_predict_from_flops(log_epoch_s, log_flops, kernel)) * epochs
    seconds[n : len(rows)] = history.seconds_left[paused]

    boxes = BoxDecomposition(history)
    gains = boxes.expected_hypervolume_improvement(costs[n:], mean[n:], STD_SCALE * np.sqrt(variance[n:]))
    values = gains / np.maximum(seconds[n:], 1e-9) ** (1 - history.budget_used)
    return np.asarray(np.where(seconds[n:] <= history.available_s, values, values * TOO_LONG))


def _training_rows(history: History) -> NDArray[np.intp]:
    """Rows to fit the model to: those with a finite metric and known costs, the longest trained first."""
    last = history.losses[np.arange(len(history)), np.maximum(history.epochs, 1) - 1]
    rows = np.flatnonzero((history.epochs > 0) & np.isfinite(last) & np.isfinite(history.costs).all(axis=1))
    return rows[np.argsort(-history.epochs[rows], kind="stable")][:MAX_TRIALS]


def _squared_distances(architectures: Sequence[Mapping[str, Any]]) -> Floats:
    """``(settings, n, n)``: squared distances in each setting that varies.

    Numbers are compared on a logarithmic scale, if all are positive, and scaled to a range of 1. An architecture
    without a setting, such as one of another mechanism, gets the midpoint of the range: the pattern of mechanisms, a
    categorical setting, tells the two apart.
    """
    tables = [{"pattern": pattern(each), **settings(each)} for each in architectures]
    squared = []
    for name in sorted({name for table in tables for name in table}):
        values = [table.get(name) for table in tables]
        present = [value for value in values if value is not None]
        if len({repr(value) for value in present}) < 2:
            continue
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
            numbers = np.array([np.nan if value is None else float(value) for value in values])
            numbers = np.log(numbers) if np.nanmin(numbers) > 0 else numbers
            numbers = np.nan_to_num((numbers - np.nanmin(numbers)) / (np.nanmax(numbers) - np.nanmin(numbers)), nan=0.5)
            squared.append((numbers[:, None] - numbers) ** 2)
        else:
            categories = np.array([repr(value) for value in values])
            squared.append((categories[:, None] != categories) * CATEGORY_DISTANCE**2)
    return np.array(squared).reshape(-1, len(tables), len(tables))


def _rbf_kernel(squared_distances: Floats, lengthscales: Floats) -> Floats:
    """``k(x, x') = exp(-1/2 sum_j d_j(x, x')^2 / l_j^2)``: RBF with automatic relevance determination, variance 1."""
    return np.asarray(np.exp(-0.5 * np.tensordot(1 / lengthscales**2, squared_distances, 1)))


def _fit_lengthscales(squared_distances: Floats, y_standardized: Floats, noise: Floats) -> Floats:
    """Length scales ``(settings,)`` of highest posterior density, by coordinate search.

    The negative log posterior is ``1/2 y^T K^-1 y + 1/2 log|K| + 1/4 sum_j log(l_j / LENGTHSCALE)^2`` up to a
    constant, with ``K = kernel + diag(noise + NUGGET + JITTER)`` and a log-normal prior.
    """

    def neg_log_posterior(lengthscales: Floats) -> float:
        covariance = _rbf_kernel(squared_distances, lengthscales) + np.diag(noise + NUGGET + JITTER)
        cholesky = np.linalg.cholesky(covariance)
        whitened = solve_triangular(cholesky, y_standardized, lower=True)
        log_ratio = np.log(lengthscales / LENGTHSCALE)
        return float(0.5 * whitened @ whitened + np.log(np.diag(cholesky)).sum() + 0.25 * log_ratio @ log_ratio)

    lengthscales = np.full(len(squared_distances), LENGTHSCALE)
    if len(y_standardized) < MIN_FIT:
        return lengthscales
    best = neg_log_posterior(lengthscales)
    for _ in range(3):
        for k in range(len(lengthscales)):
            for factor in (0.6, 1.6):
                proposal = lengthscales.copy()
                proposal[k] = np.clip(proposal[k] * factor, *LENGTHSCALE_BOUNDS)
                value = neg_log_posterior(proposal)
                if value < best:
                    best, lengthscales = value, proposal
    return lengthscales


def _posterior(cross_cov: Floats, kernel: Floats, y_standardized: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Posterior mean ``k^T K^-1 y`` and variance ``k(x, x) - k^T K^-1 k`` ``(all,)`` of standardized final losses.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1.

    Args:
        cross_cov: ``(all, train)``, each row being a ``k``.
        kernel: ``(train, train)``; ``K = kernel + diag(noise + NUGGET + JITTER)``.
        y_standardized: ``(train,)``.
        noise: ``(train,)``: variances of the observations.
    """
    cholesky = np.linalg.cholesky(kernel + np.diag(noise + NUGGET + JITTER))
    whitened = solve_triangular(cholesky, cross_cov.T, lower=True)
    mean = whitened.T @ solve_triangular(cholesky, y_standardized, lower=True)
    return mean, np.maximum(1.0 + NUGGET - (whitened**2).sum(axis=0), 1e-5)


def _predict_from_flops(log_y: Floats, log_flops: Floats, kernel: Floats) -> Floats:
    """``(all,)``: a quantity on a log scale, by linear regression on log FLOPs with a GP on the residuals.

    Args:
        log_y: ``(train,)``: observed logarithms.
        log_flops: ``(all,)``, the training rows first.
        kernel: ``(all, train)``.
    """
    n = len(log_y)
    slope = 1.0
    if np.ptp(log_flops[:n]) > 0:
        slope = float(np.clip(np.polyfit(log_flops[:n], log_y, 1)[0], 0.2, 1.5))
    residuals = log_y - slope * log_flops[:n]
    scale = max(float(residuals.std()), 0.05)
    weights = np.linalg.solve(kernel[:n] + 0.003 * np.eye(n), (residuals - residuals.mean()) / scale)
    return np.asarray(slope * log_flops + residuals.mean() + scale * kernel @ weights)
