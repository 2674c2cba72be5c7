"""Dominance, fronts, crowding distance and hypervolume against slow references, with ties, duplicates and NaN."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from search.pareto import crowding_distance, dominating, hypervolume, iter_fronts, non_dominated

INF, NAN = float("inf"), float("nan")


def dominates(a, b):
    finite = all(abs(value) < INF for value in a)
    return finite and all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def slow_fronts(points):
    """The front of every point, 0 the first and None for non-finite points: remove one front after the other."""
    rest = {i for i, point in enumerate(points) if all(abs(value) < INF for value in point)}
    ranks = [None] * len(points)
    depth = 0
    while rest:
        front = {i for i in rest if not any(dominates(points[j], points[i]) for j in rest)}
        for i in front:
            ranks[i] = depth
        rest, depth = rest - front, depth + 1
    return ranks


def slow_hypervolume(points, reference):
    """Inclusion-exclusion over all subsets of the dominated boxes."""
    boxes = [point for point in points if all(x < end for x, end in zip(point, reference, strict=True))]
    total = 0.0
    for size in range(1, len(boxes) + 1):
        for subset in itertools.combinations(boxes, size):
            corner = np.max(subset, axis=0)
            total -= (-1) ** size * float(np.prod(np.asarray(reference) - corner))
    return total


def slow_crowding_distance(front, ranges):
    """The definition, one point and objective after the other."""
    distances = []
    for i, point in enumerate(front):
        if point in front[:i]:
            distances.append(0.0)
            continue
        distance = INF if all(other == point for other in front) else 0.0
        for axis, extent in enumerate(ranges):
            values = [other[axis] for other in front]
            below = [value for value in values if value < point[axis]]
            above = [value for value in values if value > point[axis]]
            if below and above:
                distance += (min(above) - max(below)) / extent
            elif below or above:
                distance = INF
        distances.append(distance)
    return distances


def sets_of_points(objectives, seed=0):
    """Sets of none, one and many points with many ties and duplicates, some with a non-finite row."""
    random = np.random.default_rng(seed)
    yield np.empty((0, objectives))
    yield np.ones((1, objectives))
    yield np.ones((4, objectives))
    yield np.full((1, objectives), NAN)
    for size in (2, 3, 5, 17, 40):
        for levels in (2, 4, 1000):
            points = random.integers(0, levels, (size, objectives)).astype(float)
            yield points
            points = points.copy()
            points[random.integers(size), random.integers(objectives)] = random.choice([NAN, INF, -INF])
            yield points


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_fronts_and_dominance_equal_brute_force(objectives):
    for points in sets_of_points(objectives):
        slow = slow_fronts(points.tolist())
        numbers = range(max((number for number in slow if number is not None), default=-1) + 1)
        expected = [[row for row, number in enumerate(slow) if number == front] for front in numbers]
        assert [rows.tolist() for rows in iter_fronts(points)] == expected
        assert non_dominated(points).tolist() == [number == 0 for number in slow]
        for point in points:
            assert dominating(points, point).tolist() == [dominates(other, point) for other in points.tolist()]


def test_duplicates_of_a_non_dominated_point_are_all_non_dominated():
    assert non_dominated([[1, 2], [2, 1], [1, 2], [2, 2]]).tolist() == [True, True, True, False]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_non_finite_points_are_on_no_front_and_dominate_nothing(bad):
    assert non_dominated([[bad, 0], [1, 1]]).tolist() == [False, True]
    assert non_dominated([[bad, 0]]).tolist() == [False]
    assert [rows.tolist() for rows in iter_fronts([[bad, 0], [1, 1], [2, 2]])] == [[1], [2]]
    assert hypervolume([[bad, 0], [1, 1]], [2, 2], ideal=[0, 0]) == 0.25


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_fronts_do_not_depend_on_order_or_on_a_monotone_scale(objectives):
    random = np.random.default_rng(objectives)
    points = random.integers(0, 6, (50, objectives)).astype(float)
    order = random.permutation(50)
    before = [set(rows.tolist()) for rows in iter_fronts(points)]
    assert [set(order[rows].tolist()) for rows in iter_fronts(points[order])] == before
    points[:, 0] = np.exp(points[:, 0])
    assert [set(rows.tolist()) for rows in iter_fronts(points)] == before


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_crowding_distance_equals_its_definition(objectives):
    for points in sets_of_points(objectives):
        points = points[np.isfinite(points).all(1)]
        if not len(points):
            continue
        ranges = np.ptp(points, axis=0)
        for rows in iter_fronts(points):
            front = points[rows]
            expected = slow_crowding_distance(front.tolist(), ranges.tolist())
            assert crowding_distance(front, ranges) == pytest.approx(expected)


def test_crowding_distance_is_normalised_by_the_given_ranges():
    front = [[0, 3], [1, 2], [3, 0]]
    assert crowding_distance(front, [3, 3]).tolist() == [INF, 2.0, INF]
    assert crowding_distance(front, [6, 30]).tolist() == [INF, 0.6, INF]


@pytest.mark.parametrize("unit", [0.1, 0.3, 0.7, 1e-9, 1e9 / 3])
def test_equal_gaps_have_equal_crowding_distances_in_any_unit(unit):
    front = np.array([[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]]) * [unit, 1] + [unit / 7, 0]
    assert len(set(crowding_distance(front, np.ptp(front, axis=0))[1:4])) == 1


def test_duplicates_have_crowding_distance_0_and_do_not_change_that_of_others():
    assert crowding_distance([[0, 4], [2, 2], [2, 2], [4, 0]], [4, 4]).tolist() == [INF, 2.0, 0.0, INF]
    assert crowding_distance([[1, 1], [1, 1]], [4, 4]).tolist() == [INF, 0.0]


def test_an_objective_that_is_constant_on_a_front_is_ignored():
    assert crowding_distance([[0, 2, 7], [1, 1, 7], [2, 0, 7]], [2, 2, 5]).tolist() == [INF, 2.0, INF]
    assert crowding_distance([[0, 2, 7], [1, 1, 7], [2, 0, 7]], [2, 2, 0]).tolist() == [INF, 2.0, INF]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_equals_inclusion_exclusion(objectives):
    random = np.random.default_rng(objectives)
    for size in (0, 1, 2, 5, 8):
        for levels in (3, 9):
            points = random.integers(0, levels, (size, objectives)).astype(float)
            reference = np.full(objectives, levels - 2.0)  # some points are on it and some beyond
            expected = slow_hypervolume(points.tolist(), reference.tolist())
            assert hypervolume(points, reference) == pytest.approx(expected)
            share = hypervolume(points, reference, ideal=np.zeros(objectives))
            assert share == pytest.approx(expected / (levels - 2.0) ** objectives)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_equals_the_number_of_dominated_grid_cells(objectives):
    random = np.random.default_rng(objectives)
    points = random.integers(0, 7, (30, objectives))
    cells = np.indices((6,) * objectives).reshape(objectives, -1).T
    covered = (points[:, None] <= cells).all(2).any(0)
    assert hypervolume(points, np.full(objectives, 6)) == pytest.approx(covered.sum())


def test_a_point_adds_hypervolume_exactly_if_no_other_is_at_least_as_good():
    random = np.random.default_rng(0)
    points = random.integers(0, 10, (25, 3)).astype(float)
    volumes = [hypervolume(points[:n], [10, 10, 10], ideal=[0, 0, 0]) for n in range(26)]
    for n in range(25):
        as_good = (points[:n] <= points[n]).all(1).any()
        assert (volumes[n + 1] > volumes[n] + 1e-12) == (not as_good)
        assert volumes[n + 1] >= volumes[n] - 1e-12


def test_the_normalised_hypervolume_is_1_at_the_ideal_and_beyond():
    assert hypervolume([[0, 0]], [2, 4], ideal=[0, 0]) == 1.0
    assert hypervolume([[-5, -5]], [2, 4], ideal=[0, 0]) == 1.0
    assert hypervolume([[-5, 2]], [2, 4], ideal=[0, 0]) == 0.5
    assert hypervolume([[2, 0]], [2, 4], ideal=[0, 0]) == 0.0  # a line has no area
    assert hypervolume([], [2, 4], ideal=[0, 0]) == 0.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (([[1, 2]], [3]), "points of 2 objectives but a reference of 1"),
        (([1, 2], [3, 3]), "must be rows"),
        (([[1, 2]], [3, 3], [3, 0]), "must be below the reference"),
        (([[1, 2]], [3, 3], [0]), "must be below the reference"),
    ],
)
def test_arguments_of_wrong_shape_are_rejected(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        hypervolume(*arguments)
