"""A measured cost of unseen architectures: linear regression on log FLOPs, and a Gaussian process on the residuals.

All on a logarithmic scale, so that errors are relative. FLOPs alone do not tell latencies: mechanisms differ in how
much of their time is arithmetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats
from search.samplers.gaussian_process import fit_hyperparameters, kernel_blocks, rbf_kernel

SLOPES = (0.2, 1.5)  # bounds of the exponent of the FLOPs
LEAST_STD = 0.05  # of the residuals, so that a few equal ones do not become certainty

Hyperparameters = tuple[Floats, float]  # length scales (settings,) and nugget


def fit_cost(
    features: Floats, owners: NDArray[np.intp], count: int, size: Floats, log_y: Floats, rows: NDArray[np.intp]
) -> Hyperparameters:
    """The hyperparameters of the residuals' process.

    Args:
        features: ``(all, features)``, of :func:`~search.samplers.encoding.encode`.
        owners: ``(features,)``, of the same.
        count: of settings, of the same.
        size: ``(all,)`` log FLOPs.
        log_y: ``(train,)`` of the first architectures.
        rows: of these, to which the hyperparameters are fitted.
    """
    _, middle, scale, residuals = _standardized(size, log_y)
    return fit_hyperparameters(features[rows], owners, count, (residuals[rows] - middle) / scale)


def predict_cost(
    features: Floats, owners: NDArray[np.intp], size: Floats, log_y: Floats, fitted: Hyperparameters
) -> Floats:
    """``(all,)`` logarithms of the cost; the arguments are those of :func:`fit_cost`."""
    n = len(log_y)
    lengthscales, nugget = fitted
    slope, middle, scale, residuals = _standardized(size, log_y)
    known, scales = features[:n], lengthscales[owners]
    weights = np.linalg.solve(rbf_kernel(known, known, scales) + nugget * np.eye(n), (residuals - middle) / scale)
    mean = np.concatenate([block @ weights for block in kernel_blocks(features, known, scales)])
    return np.asarray(slope * size + middle + scale * mean)


def _standardized(size: Floats, log_y: Floats) -> tuple[float, float, float, Floats]:
    """The exponent of the FLOPs, and mean, standard deviation and values ``(train,)`` of the residuals."""
    n, slope = len(log_y), 1.0
    if np.ptp(size[:n]) > 0:
        slope = float(np.clip(np.polyfit(size[:n], log_y, 1)[0], *SLOPES))
    residuals = log_y - slope * size[:n]
    return slope, float(residuals.mean()), max(float(residuals.std()), LEAST_STD), residuals
