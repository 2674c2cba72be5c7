"""Final losses extrapolated from partial curves, against sampling and a loop over pairs of curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.samplers.curves import extrapolate_final_loss
from search.study.history import History
from search.study.records import Objectives, Record

OBJECTIVES = Objectives("metric", "maximize", ("latency_ms",), chance=0.5, best=2.5, ceilings=(8.0,))
PLAN = {"train": {"epochs": 8}}


def study(seed=0):
    """Complete trials of 5 to 8 epochs and trials that were stopped after 1 to 6."""
    random = np.random.default_rng(seed)
    curves = [list(enumerate(random.uniform(0.5, 2.5, random.integers(5, 9)).tolist(), start=1)) for _ in range(12)]
    done = [
        Record(n, "complete", {"latency_ms": 1.0}, curve, min(curve[-1][1] + 0.1, 2.5), PLAN)
        for n, curve in enumerate(curves)
    ]
    begun = [Record(20 + n, "pruned", {"latency_ms": 1.0}, [(1, 0.6), (n + 1, 0.8)], None, PLAN) for n in range(6)]
    return done, begun


def slow_mixture(record, others, similarities):
    """Pairs of a weight and a gain, and the weight and the largest gain of the uniform distribution."""
    epoch, now = record.curve[-1][0], -record.curve[-1][1]
    pairs = []
    for other, similarity in zip(others, similarities, strict=True):
        then = dict(other.curve).get(epoch)
        if then is not None:
            closeness = math.exp(-0.5 * ((-then - now) / (0.15 * 2.0)) ** 2)
            pairs.append((similarity * closeness, -other.metric - -then))
    return pairs, (1 - epoch / 8, min(-2.5 - now, 0.0))


@pytest.mark.parametrize("with_similarity", [False, True])
def test_the_mean_and_the_variance_are_those_of_samples_of_the_mixture(with_similarity):
    done, begun = study()
    history, random = History.of([*done, *begun], OBJECTIVES), np.random.default_rng(1)
    rows = np.array([history.row(record.number) for record in begun])
    similarity = random.random((len(rows), len(history))) if with_similarity else np.ones((len(rows), len(history)))
    mean, std = extrapolate_final_loss(history, rows, similarity if with_similarity else None)
    for i, record in enumerate(begun):
        pairs, (weight, jump) = slow_mixture(record, done, similarity[i, : len(done)])
        weights = np.array([*(each for each, _ in pairs), weight])
        chosen = random.choice(len(weights), 200_000, p=weights / weights.sum())
        gains = np.array([*(gain for _, gain in pairs), 0.0])[chosen]
        gains = np.where(chosen == len(pairs), random.uniform(jump, 0.0, len(chosen)), gains)
        assert mean[i] == pytest.approx(-record.curve[-1][1] + gains.mean(), abs=0.01)
        assert std[i] == pytest.approx(math.hypot(gains.std(), 0.02 * 2.0), abs=0.01)


def test_extrapolation_ignores_non_finite_metrics_and_is_exact_for_complete_trials():
    lost = Record(0, "complete", {"latency_ms": 1.0}, [(1, math.nan)], 0.9)
    complete = Record(1, "complete", {"latency_ms": 1.0}, [(1, 0.2)], 0.6)
    fresh = Record(2, "running", {"latency_ms": 1.0})
    mean, std = extrapolate_final_loss(History.of([lost, complete, fresh], OBJECTIVES), np.arange(3))
    np.testing.assert_allclose(mean, [-0.9, -0.6, math.nan])
    np.testing.assert_allclose(std, [0.0, 0.0, math.inf])


def test_a_curve_unlike_all_that_were_seen_to_their_end_may_still_rise():
    """The less similar the complete trials, the higher the expected gain; near the last epoch hardly any is left."""
    flat = [Record(n, "complete", {"latency_ms": 1.0}, [(t, 0.6) for t in range(1, 9)], 0.6, PLAN) for n in range(5)]

    def expected(epoch, similar):
        begun = Record(9, "running", {"latency_ms": 1.0}, [(t, 0.6) for t in range(1, epoch + 1)], None, PLAN)
        history = History.of([*flat, begun], OBJECTIVES)
        mean, std = extrapolate_final_loss(history, np.array([5]), np.full((1, 6), similar))
        return -mean[0], std[0]

    gains = [expected(2, similar)[0] for similar in (1.0, 0.5, 0.1, 0.0)]
    assert gains == sorted(gains)
    assert gains[0] == pytest.approx(0.6 + 1.9 / 2 * 0.75 / 5.75)
    assert gains[-1] == pytest.approx(0.6 + 1.9 / 2)
    assert expected(7, 1.0)[1] < expected(2, 1.0)[1] < expected(2, 0.0)[1]
