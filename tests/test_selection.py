"""The knee of a front, and what a unit of the cost buys."""

import numpy as np
import pytest
from tiny_task import OBJECTIVES

from search.study.records import Objectives, Record, State
from search.study.selection import Selection, exchange_rates, knee, select
from spaces.dimensions import ConfigError


def complete(number, metric, **costs):
    return Record(number, State.COMPLETE, costs, metric=metric)


def farthest_below_the_line(points):
    """The index of the point farthest from the line through the ends of a front of two objectives."""
    points = np.array(points)
    first, last = points[points[:, 0].argmin()], points[points[:, 0].argmax()]
    along = (last - first) / np.ptp(points, axis=0)
    offsets = (points - first) / np.ptp(points, axis=0)
    return int(np.abs(along[0] * offsets[:, 1] - along[1] * offsets[:, 0]).argmax())


@pytest.mark.parametrize("seed", range(20))
def test_the_knee_of_two_objectives_is_farthest_from_the_line_through_the_ends(seed):
    generator = np.random.default_rng(seed)
    gaps = generator.random((2, 9)).cumsum(axis=1)  # both ascending
    curve = np.stack([gaps[0], 1 / gaps[1] * 7 - 300], axis=1)
    # Convex from below as a whole, so that the farthest point is on the side of the origin.
    assert knee(curve.tolist()) == farthest_below_the_line(curve) or curve_is_concave(curve)


def curve_is_concave(curve):
    """Whether the point farthest from the line is beyond it, where there is no knee."""
    scaled = (curve - curve.min(axis=0)) / np.ptp(curve, axis=0)
    return scaled[farthest_below_the_line(curve)].sum() > 1


@pytest.mark.parametrize(
    ("points", "index"),
    [
        ([(3.0, 1.0)], 0),
        ([(-0.9, 1.0), (-0.9, 1.0)], 0),
        ([(0.0, 1.0), (-1.0, 1.0)], 1),  # one objective is constant
        ([(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)], 0),  # all are equally far
        ([(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.2, 0.2, 0.2), (1.0, 1.0, 0.0)], 2),
    ],
)
def test_the_knee_of_special_fronts(points, index):
    assert knee(points) == index


def test_a_metric_that_is_minimized_is_limited_from_above():
    objectives = Objectives("error_rate", "minimize", ("latency_ms",), chance=1.0, best=0.0, ceilings=(1.0,))
    members = [complete(0, 0.5, latency_ms=1.0), complete(1, 0.2, latency_ms=2.0), complete(2, 0.1, latency_ms=3.0)]
    assert select(members, objectives, Selection(at_least=0.2)).number == 1
    assert select(members, objectives, Selection(within={"latency_ms": 2.5})).number == 1


@pytest.mark.parametrize(("members", "selection"), [([], Selection(knee=True)), ([complete(0, 0.5)], Selection())])
def test_an_empty_front_and_an_empty_selection_are_refused(members, selection):
    with pytest.raises(ConfigError):
        select(members, OBJECTIVES, selection)


def test_exchange_rates_are_slopes_along_the_front():
    members = [complete(number, metric, latency_ms=ms) for number, (metric, ms) in enumerate([(0.5, 1.0), (0.7, 2.0)])]
    assert exchange_rates(members, OBJECTIVES) == [None, pytest.approx(0.2)]
    same = [complete(0, 0.5, latency_ms=1.0), complete(1, 0.5, latency_ms=1.0)]
    assert exchange_rates(same, OBJECTIVES) == [None, None]
    assert exchange_rates([], OBJECTIVES) == []
    several = Objectives("accuracy", "maximize", ("latency_ms", "parameters"), chance=0, best=1, ceilings=(1, 1))
    assert exchange_rates(members, several) == [None, None]
