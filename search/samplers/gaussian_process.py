"""Gaussian process regression over the settings of architectures: kernel, hyperparameters and posterior.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006: an RBF kernel with automatic relevance
determination (section 5.1), and the posterior by a Cholesky decomposition (algorithm 2.1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

from search.pareto import Floats

LENGTHSCALE = 1.2  # prior median; each numerical setting is scaled to a range of 1
LENGTHSCALE_BOUNDS = (0.3, 6.0)
NUGGET = 0.03  # prior median of the variance that settings do not explain, as a share of the prior variance
NUGGET_BOUNDS = (0.01, 1.0)
JITTER = 1e-6  # for the Cholesky decomposition
MAX_FIT = 60  # observations that hyperparameters are fitted to
MIN_FIT = 8  # observations before they are fitted
MIN_VARIANCE = 1e-5  # of the posterior, which rounding could make negative
BLOCK = 512  # candidates at a time, so that their covariances stay in the processor's cache


def rbf_kernel(a: Floats, b: Floats, scales: Floats) -> Floats:
    """``k(x, x') = exp(-1/2 sum_j (x_j - x'_j)^2 / l_j^2)`` ``(a, b)``, with a length scale for each feature."""
    a, b = a / scales, b / scales
    # One product has the whole exponent, a.b - |a|^2 / 2 - |b|^2 / 2: passes over the memory would take longer.
    left = np.column_stack([a, -0.5 * (a**2).sum(axis=1), np.ones(len(a))])
    right = np.column_stack([b, np.ones(len(b)), -0.5 * (b**2).sum(axis=1)])
    exponent: Floats = left @ right.T
    np.minimum(exponent, 0.0, out=exponent)
    return np.exp(exponent, out=exponent)


def kernel_blocks(a: Floats, b: Floats, scales: Floats) -> Iterator[Floats]:
    """The rows of :func:`rbf_kernel`, ``BLOCK`` at a time."""
    for start in range(0, len(a), BLOCK):
        yield rbf_kernel(a[start : start + BLOCK], b, scales)


def fit_hyperparameters(
    features: Floats, owners: NDArray[np.intp], count: int, y_standardized: Floats
) -> tuple[Floats, float]:
    """Length scales ``(settings,)`` and nugget of highest posterior density, by coordinate search.

    The negative log posterior is ``1/2 y^T K^-1 y + 1/2 log|K| + 1/4 sum_j log(l_j / LENGTHSCALE)^2 +
    1/4 log(nugget / NUGGET)^2`` up to a constant, with ``K = kernel + (nugget + JITTER) I`` and log-normal priors.
    """
    # The nugget is searched for like the square of a length scale, as the last one.
    values = np.append(np.full(count, LENGTHSCALE), NUGGET**0.5)
    prior, bounds = values.copy(), [LENGTHSCALE_BOUNDS] * count + [(NUGGET_BOUNDS[0] ** 0.5, NUGGET_BOUNDS[1] ** 0.5)]
    if len(y_standardized) < MIN_FIT:
        return values[:-1], NUGGET
    every = np.linspace(0, len(y_standardized) - 1, min(len(y_standardized), MAX_FIT)).round().astype(np.intp)
    features, y_standardized = features[every], y_standardized[every]
    squared = np.zeros((count, len(every), len(every)))
    for feature, owner in zip(features.T, owners, strict=True):
        squared[owner] += (feature[:, None] - feature) ** 2

    def neg_log_posterior(exponent: Floats, values: Floats) -> float:
        covariance = np.exp(-0.5 * exponent)
        covariance[np.diag_indices_from(covariance)] += values[-1] ** 2 + JITTER
        cholesky = np.linalg.cholesky(covariance)
        whitened = solve_triangular(cholesky, y_standardized, lower=True, check_finite=False)
        log_ratio = np.log(values / prior)
        return float(0.5 * whitened @ whitened + np.log(np.diag(cholesky)).sum() + 0.25 * log_ratio @ log_ratio)

    exponent = np.tensordot(1 / values[:-1] ** 2, squared, 1)
    best = neg_log_posterior(exponent, values)
    for _ in range(3):
        for k in range(len(values)):
            for factor in (0.6, 1.6):
                proposal = values.copy()
                proposal[k] = np.clip(proposal[k] * factor, *bounds[k])
                change = (1 / proposal[k] ** 2 - 1 / values[k] ** 2) * squared[k] if k < count else 0.0
                value = neg_log_posterior(exponent + change, proposal)
                if value < best:
                    best, values, exponent = value, proposal, exponent + change
    return values[:-1], float(values[-1] ** 2)


class GaussianProcess:
    """The posterior given observations: Rasmussen and Williams, 2006, algorithm 2.1.

    Args:
        kernel: ``(train, train)``; ``K = kernel + diag(noise + nugget + JITTER)``.
        y_standardized: ``(train,)``.
        noise: ``(train,)``: variances of the observations.
        nugget: variance that settings do not explain.
    """

    def __init__(self, kernel: Floats, y_standardized: Floats, noise: Floats, nugget: float) -> None:
        self.nugget = nugget
        self._cholesky = np.linalg.cholesky(kernel + np.diag(noise + nugget + JITTER))
        self._weights = cho_solve((self._cholesky, True), y_standardized, check_finite=False)

    def mean(self, cross_cov: Floats) -> Floats:
        """``k^T K^-1 y`` ``(some,)``; each row of ``cross_cov`` ``(some, train)`` is a ``k``."""
        return np.asarray(cross_cov @ self._weights)

    def variance(self, cross_cov: Floats, *, first: int | None = None) -> Floats:
        """``k(x, x) - k^T K^-1 k`` ``(some,)``.

        With ``first``, the variance given so many observations only: fast, and an upper bound, as further observations
        never raise the variance.
        """
        factor = self._cholesky[:first, :first]
        whitened = solve_triangular(factor, cross_cov[:, :first].T, lower=True, check_finite=False)
        return np.maximum(1.0 + self.nugget - np.einsum("ij,ij->j", whitened, whitened), MIN_VARIANCE)
