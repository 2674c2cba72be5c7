import math

import pytest
from tiny_task import OBJECTIVES

from search.study.records import Objectives, Record, front


def trial(number, latency, accuracy, *, state="complete"):
    costs = {"latency_ms": latency, "parameters": 10.0}
    architecture = {"pattern": ["softmax"], "model": {"depth": number}}
    return Record(number, state, costs, [(1, accuracy)], accuracy if state == "complete" else None, architecture)


def test_the_front_has_the_non_dominated_complete_trials_by_ascending_cost():
    trials = [
        trial(0, 0.9, 0.9),
        trial(1, 0.2, 0.5),
        trial(2, 0.5, 0.4),  # dominated by 1
        trial(3, 0.1, 0.99, state="pruned"),
        trial(4, 0.3, math.nan),
        trial(6, 0.4, 0.5),  # the metric of 1 at a higher cost
    ]
    assert [member.number for member in front(trials, OBJECTIVES)] == [1, 0]
    assert front([], OBJECTIVES) == []
    assert front(trials[3:5], OBJECTIVES) == []


def test_a_metric_may_be_minimized():
    bits = Objectives(
        metric="bits_per_byte", direction="minimize", costs=("latency_ms",), chance=8.0, best=0.0, ceilings=(1.0,)
    )
    trials = [trial(0, 0.5, 3.0), trial(1, 0.4, 2.0), trial(2, 0.1, 6.0)]
    assert [member.number for member in front(trials, bits)] == [2, 1]
    assert bits.hypervolume(trials[1:2]) == pytest.approx(0.6 * 6 / 8)


@pytest.mark.parametrize(
    ("points", "share"),
    [
        ([], 0.0),
        ([(0.5, 1.0)], 0.5),
        ([(0.0, 1.0)], 1.0),
        ([(0.5, 2 / 3)], 0.25),  # half of the latency, halfway between chance and best
        ([(0.5, 1.0), (0.25, 2 / 3)], 0.5 + 0.25 * 0.5),
        ([(1.0, 1.0)], 0.0),
        ([(0.5, 1 / 3)], 0.0),
        ([(2.0, 1.0)], 0.0),
    ],
)
def test_hypervolume_is_a_share_of_the_box_between_reference_and_ideal_point(points, share):
    members = [trial(number, *point) for number, point in enumerate(points)]
    assert OBJECTIVES.hypervolume(members) == pytest.approx(share)


def test_the_front_of_several_costs():
    both = Objectives(
        metric="accuracy",
        direction="maximize",
        costs=("latency_ms", "parameters"),
        chance=0.1,
        best=1.0,
        ceilings=(1.0, 20.0),
    )
    fast = trial(0, 0.5, 0.9)
    small = Record(1, "complete", {"latency_ms": 0.6, "parameters": 5.0}, (), 0.9)
    assert front([fast, small], OBJECTIVES) == [fast]
    assert front([fast, small], both) == [fast, small]
