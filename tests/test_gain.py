"""Expected hypervolume improvement against Monte Carlo: sample the final loss and compute the hypervolume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from search.acquisition import BoxDecomposition
from search.pareto import hypervolume
from search.study.history import History
from search.study.records import Objectives, Record

COSTS = ("latency_ms", "parameters", "memory_mb")


def objectives(costs=1, direction="maximize"):
    best = 1.0 if direction == "maximize" else 0.0
    return Objectives("metric", direction, COSTS[:costs], chance=1.0 - best, best=best, ceilings=(8.0,) * costs)


def finished(points, direction="maximize"):
    """Complete trials with the metric and costs of the rows of ``points``."""
    return [
        Record(number, "complete", dict(zip(COSTS, map(float, costs), strict=False)), [(1, metric)], float(metric))
        for number, (metric, *costs) in enumerate(points)
    ]


def studies(costs):
    """Rows ``(metric, *costs)``: none, duplicates, points on the boundary of the box and outside, random ones."""
    random = np.random.default_rng(costs)
    yield []
    yield [[0.5, *[4.0] * costs]] * 3
    yield [[0.5, *[8.0] * costs], [0.0, *[1.0] * costs], [-0.2, *[1.0] * costs], [0.9, *[9.0] * costs]]
    for size, levels in ((6, 4), (12, 1000), (40, 1000)):
        points = random.integers(0, levels + 1, (size, 1 + costs)) / levels
        yield (points * [1.0, *[8.5] * costs]).tolist()


def sampled_improvement(history, cost, mean, std, count):
    """The mean improvement over evenly spaced quantiles of the normal distribution of the final loss."""
    aims = history.objectives
    points = np.column_stack([history.finals, history.costs])[history.complete]
    before = hypervolume(points, aims.reference, aims.ideal) if len(points) else 0.0
    total = 0.0
    for loss in norm.ppf((np.arange(count) + 0.5) / count, mean, std):
        total += hypervolume([*points.tolist(), [loss, *cost]], aims.reference, aims.ideal) - before
    return total / count


@pytest.mark.parametrize(
    ("costs", "direction", "samples", "tolerance"),
    [
        (1, "maximize", 100, 4e-4),
        pytest.param(1, "minimize", 100, 4e-4, marks=pytest.mark.slow),
        (2, "maximize", 20, 0.03),
        pytest.param(3, "maximize", 10, 0.06, marks=pytest.mark.slow),
    ],
)
def test_ehvi_equals_sampling(costs, direction, samples, tolerance):
    aims, random = objectives(costs, direction), np.random.default_rng(0)
    for points in list(studies(costs))[: 6 if costs < 3 else 5]:  # the reference is slow for 40 points in 4 dimensions
        metrics = [[metric if direction == "maximize" else 1.0 - metric, *rest] for metric, *rest in points]
        history = History.of(finished(metrics), aims)
        boxes = BoxDecomposition(history)
        trials = [(0.5, 0.1, 2.0), (0.97, 0.2, 4.0), (0.2, 0.05, 0.0), (random.random(), 0.3, 8.0 * random.random())]
        for metric, std, cost in trials:
            mean = aims.loss(metric if direction == "maximize" else 1.0 - metric)
            place = np.full((1, costs), cost)
            (improvement,) = boxes.expected_hypervolume_improvement(place, np.array([mean]), np.array([std]))
            sampled = sampled_improvement(history, place[0], mean, std, samples)
            assert improvement == pytest.approx(sampled, abs=tolerance), (points, metric, std, cost)


@pytest.mark.parametrize(("costs", "tolerance"), [(1, 1e-12), (2, 0.03), (3, 0.06)])
def test_hypervolume_is_that_of_the_complete_trials(costs, tolerance):
    for points in studies(costs):
        history = History.of([*finished(points), Record(99, "running", dict.fromkeys(COSTS, 0.0))], objectives(costs))
        assert BoxDecomposition(history).hypervolume == pytest.approx(
            objectives(costs).hypervolume(history.records()), abs=tolerance
        )


@pytest.mark.parametrize("costs", [1, 2, 3])
def test_ehvi_does_not_exceed_its_upper_bound_and_equals_it_in_few_cells(costs):
    random = np.random.default_rng(0)
    place, mean = random.uniform(-1.0, 9.0, (200, costs)), random.uniform(-1.1, 0.0, 200)
    place[0] = 4.0  # that of a trial of some studies
    std = 10 ** random.uniform(-2, 0, 200)
    for points in studies(costs):
        boxes = BoxDecomposition(History.of(finished(points), objectives(costs)))
        bound = boxes.upper_bound(place, mean, std)
        for share in (1e-3, 0.1, 0.5, 1.0):
            improvement = boxes.expected_hypervolume_improvement(place, mean, share * std)
            assert (improvement <= bound * (1 + 1e-9) + 1e-15).all()
        if len(boxes.best_loss) <= (8 if costs == 1 else 1) or not points:
            near = mean > (boxes.best_loss.max() + boxes.ideal[0]) / 2  # to what it improves on, so far from the ideal
            np.testing.assert_allclose(bound[near], improvement[near], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("costs", [1, 2, 3])
def test_trials_are_independent_and_add_nothing_outside_the_box(costs):
    boxes = BoxDecomposition(History.of(finished([[0.5, *[4.0] * costs]]), objectives(costs)))
    place = np.array([[2.0] * costs, [6.0] * costs, [2.0] * (costs - 1) + [8.0], [9.0] * costs])
    mean, std = np.array([-0.7, -0.6, -0.9, -0.9]), np.array([0.1, 0.2, 0.1, 0.1])
    together = boxes.expected_hypervolume_improvement(place, mean, std)
    alone = [
        boxes.expected_hypervolume_improvement(*(part[i : i + 1] for part in (place, mean, std)))[0] for i in range(4)
    ]
    assert together.tolist() == alone
    assert together[2:].tolist() == [0.0, 0.0]
    assert boxes.cell_volumes(place).shape == (4, boxes.best_loss.size)
