"""How well latencies are predicted from those of a few networks, as the sampler does for candidates.

Random networks of a study's space are measured. In random splits of them, each method learns from ``TRAINING`` networks
and predicts the others: :mod:`search.samplers.cost_model`, ordinary least squares on the same features and log FLOPs,
and FLOPs times the constant that fits best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import kendalltau

from search.costs.stored import measured_costs, random_networks
from search.pareto import Floats
from search.samplers.cost_model import fit_cost, predict_cost
from search.samplers.encoding import encode
from search.study.stored import StoredStudy
from spaces.architecture import features as settings_of
from spaces.space import Space

TRAINING = 30  # networks that are measured before others are predicted
SPLITS = 10

Method = Callable[[Floats, Floats, int, Floats], Floats]  # features, log FLOPs, networks to learn from, their log ms


def compare_predictors(stored: StoredStudy, count: int, *, report: Callable[[str], None]) -> str:
    """A line a method: mean and standard deviation over splits of the error and of Kendall's rank correlation.

    Args:
        stored: whose space, task and settings of the latency are used.
        count: networks that are predicted.
        report: called with what is done next.

    Raises:
        ConfigError: the study's latencies are not measured, or its space has too few networks.
    """
    costs, space = measured_costs(stored), Space(stored.store.identity()["space"])
    networks = random_networks(space, TRAINING + count, option=f"--predicted {count}")
    report(f"measuring {len(networks)} networks")
    ms = np.array([timing.ms for timing in costs.timings(networks)])
    flops = np.array([costs.counted(network)["flops"] for network in networks])
    tables = [{name: value for name, value in settings_of(each).items() if name[:6] != "train."} for each in networks]
    features, owners, settings = encode(tables)

    def gaussian_process(features: Floats, size: Floats, n: int, log_ms: Floats) -> Floats:
        fitted = fit_cost(features, owners, settings, size, log_ms, np.arange(n))
        return predict_cost(features, owners, size, log_ms, fitted)

    methods = {"cost model": gaussian_process, "least squares": least_squares, "FLOPs": proportional}
    lines = [
        f"{count} networks of {ms.min():.3g} to {ms.max():.3g} ms, predicted from {TRAINING} others, {SPLITS} splits"
    ]
    for name, scores in score(methods, features, np.log(flops), np.log(ms)).items():
        (error, tau), (error_std, tau_std) = scores.mean(0), scores.std(0)
        lines.append(f"{name:14} mean error {error:5.1%} +-{error_std:.1%}  Kendall's tau {tau:.3f} +-{tau_std:.3f}")
    return "\n".join(lines)


def score(methods: Mapping[str, Method], features: Floats, size: Floats, log_ms: Floats) -> dict[str, Floats]:
    """By method, ``(splits, 2)``: mean absolute relative error and Kendall's tau on the networks not learned from."""
    generator = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for _ in range(SPLITS):
        order = generator.permutation(len(log_ms))
        truth = log_ms[order]
        for name, method in methods.items():
            predicted = method(features[order], size[order], TRAINING, truth[:TRAINING])[TRAINING:]
            error = float(np.abs(np.exp(predicted - truth[TRAINING:]) - 1).mean())
            found[name].append((error, float(kendalltau(predicted, truth[TRAINING:]).statistic)))
    return {name: np.array(scores) for name, scores in found.items()}


def least_squares(features: Floats, size: Floats, n: int, log_ms: Floats) -> Floats:
    """``(all,)``: the solution of minimum norm, in features, log FLOPs and a constant."""
    matrix = np.column_stack([features, size, np.ones(len(size))])
    return np.asarray(matrix @ np.linalg.lstsq(matrix[:n], log_ms, rcond=None)[0])


def proportional(features: Floats, size: Floats, n: int, log_ms: Floats) -> Floats:
    """``(all,)``: FLOPs at the geometric mean of the speeds."""
    return np.asarray(size + (log_ms - size[:n]).mean())
