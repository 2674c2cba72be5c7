"""Gaussian process regression over the settings of architectures: features, kernel, hyperparameters and posterior.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006: an RBF kernel with automatic relevance
determination (section 5.1), and the posterior by a Cholesky decomposition (algorithm 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from search.pareto import Floats

LENGTHSCALE = 1.2  # prior median; each numerical setting is scaled to a range of 1
LENGTHSCALE_BOUNDS = (0.3, 6.0)
CATEGORY_DISTANCE = 2**0.5  # between any two values of a categorical setting
NUGGET = 0.03  # prior median of the variance that settings do not explain, as a share of the prior variance
NUGGET_BOUNDS = (0.01, 1.0)
JITTER = 1e-6  # for the Cholesky decomposition
MAX_FIT = 60  # observations that hyperparameters are fitted to
MIN_FIT = 8  # observations before they are fitted


def encode(tables: Sequence[Mapping[str, Any]]) -> tuple[Floats, NDArray[np.intp], int]:
    """Features ``(architectures, features)``, the setting ``(features,)`` that each belongs to, and their number.

    ``tables`` are the settings of architectures by name.

    Numbers are on a logarithmic scale, if all are positive, and scaled to a range of 1; a categorical setting has a
    feature for each value, so that two values are ``CATEGORY_DISTANCE`` apart. The squared distance of two patterns of
    mechanisms is the mean over the blocks, with the shorter one repeated. Settings without differences are left out.
    An architecture without a setting, such as one of another mechanism, gets the midpoint of the range: the pattern, a
    categorical setting, tells the two apart.
    """
    columns: list[Floats] = []
    owners: list[int] = []
    for name in sorted({name for table in tables for name in table}):
        values = [table.get(name) for table in tables]
        try:
            present = set(values) - {None}
        except TypeError:  # lists
            values = [None if value is None else repr(value) for value in values]
            present = set(values) - {None}
        if len(present) < 2:
            continue
        owner = owners[-1] + 1 if owners else 0
        if all(issubclass(kind, int | float) and kind is not bool for kind in set(map(type, present))):
            numbers = np.array(values, dtype=np.float64)
            numbers = np.log(numbers) if np.nanmin(numbers) > 0 else numbers
            low, high = np.nanmin(numbers), np.nanmax(numbers)
            columns.append(np.nan_to_num((numbers - low) / (high - low), nan=0.5))
            owners.append(owner)
        else:
            one_hot = _one_hot(values)
            columns.extend(one_hot)
            owners.extend([owner] * len(one_hot))
    features = np.array(columns).reshape(len(columns), len(tables)).T
    return features, np.array(owners, dtype=np.intp), owners[-1] + 1 if owners else 0


def _one_hot(values: Sequence[Any]) -> Floats:
    """Features ``(features, architectures)`` of a categorical setting, or of one with a value per block, a tuple."""
    positions = {value: position for position, value in enumerate(dict.fromkeys(values))}
    tuples = [value if isinstance(value, tuple) else (value,) for value in positions]
    blocks = max(map(len, tuples))
    found = []
    for block in range(blocks):
        own = [value[block % len(value)] for value in tuples]
        codes = {value: code for code, value in enumerate(sorted(set(own), key=repr))}
        one_hot = np.zeros((len(codes), len(own)))
        one_hot[[codes[value] for value in own], np.arange(len(own))] = CATEGORY_DISTANCE / (2 * blocks) ** 0.5
        found.append(one_hot)
    return np.concatenate(found)[:, [positions[value] for value in values]]


def rbf_kernel(a: Floats, b: Floats, scales: Floats) -> Floats:
    """``k(x, x') = exp(-1/2 sum_j (x_j - x'_j)^2 / l_j^2)`` ``(a, b)``, with a length scale for each feature."""
    a, b = a / scales, b / scales
    values: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    values -= 2 * a @ b.T  # in place: for many candidates, new memory would take a third of the time
    np.maximum(values, 0.0, out=values)
    values *= -0.5
    return np.exp(values, out=values)


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


def gp_posterior(
    cross_cov: Floats, kernel: Floats, y_standardized: Floats, noise: Floats, nugget: float
) -> tuple[Floats, Floats]:
    """Posterior mean ``k^T K^-1 y`` and variance ``k(x, x) - k^T K^-1 k`` ``(all,)`` of standardized final losses.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1.

    Args:
        cross_cov: ``(all, train)``, each row being a ``k``.
        kernel: ``(train, train)``; ``K = kernel + diag(noise + nugget + JITTER)``.
        y_standardized: ``(train,)``.
        noise: ``(train,)``: variances of the observations.
    """
    cholesky = np.linalg.cholesky(kernel + np.diag(noise + nugget + JITTER))
    whitened = solve_triangular(cholesky, cross_cov.T, lower=True, check_finite=False)
    mean = whitened.T @ solve_triangular(cholesky, y_standardized, lower=True, check_finite=False)
    return mean, np.maximum(1.0 + nugget - (whitened**2).sum(axis=0), 1e-5)
