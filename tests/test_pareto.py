"""Dominance, layers, crowding and hypervolume against slow and obvious versions, with ties, copies and NaN."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from search.pareto import crowding, dominating, front, hypervolume, layers, peeled

INF, NAN = float("inf"), float("nan")


def dominates(a, b):
    finite = all(abs(value) < INF for value in a)
    return finite and all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def slow_layers(points):
    """Peel fronts off, one after the other."""
    rest = {i for i, point in enumerate(points) if all(abs(value) < INF for value in point)}
    ranks = [None] * len(points)
    depth = 0
    while rest:
        peel = {i for i in rest if not any(dominates(points[j], points[i]) for j in rest)}
        for i in peel:
            ranks[i] = depth
        rest, depth = rest - peel, depth + 1
    return [depth if rank is None else rank for rank in ranks]


def slow_hypervolume(points, reference):
    """Inclusion and exclusion over all subsets of the boxes."""
    boxes = [point for point in points if all(x < end for x, end in zip(point, reference, strict=True))]
    total = 0.0
    for size in range(1, len(boxes) + 1):
        for subset in itertools.combinations(boxes, size):
            corner = np.max(subset, axis=0)
            total -= (-1) ** size * float(np.prod(np.asarray(reference) - corner))
    return total


def slow_crowding(layer, ranges):
    rooms = []
    for i, point in enumerate(layer):
        if point in layer[:i]:
            rooms.append(0.0)
            continue
        room = INF if all(other == point for other in layer) else 0.0
        for axis, extent in enumerate(ranges):
            values = [other[axis] for other in layer]
            below = [value for value in values if value < point[axis]]
            above = [value for value in values if value > point[axis]]
            if below and above:
                room += (min(above) - max(below)) / extent
            elif below or above:
                room = INF
        rooms.append(room)
    return rooms


def sets_of_points(objectives, seed=0):
    """Point sets rich in ties and copies, with none, one and many points, and with rows that are no points."""
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
def test_layers_front_and_dominating_agree_with_brute_force(objectives):
    for points in sets_of_points(objectives):
        slow = slow_layers(points.tolist())
        assert layers(points).tolist() == slow
        finite = np.isfinite(points).all(1)
        assert front(points).tolist() == [rank == 0 and bool(ok) for rank, ok in zip(slow, finite, strict=True)]
        for point in points:
            assert dominating(points, point).tolist() == [dominates(other, point) for other in points.tolist()]


def test_copies_of_a_front_point_are_all_on_the_front():
    assert front([[1, 2], [2, 1], [1, 2], [2, 2]]).tolist() == [True, True, True, False]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_not_finite_is_never_on_a_front_and_hides_nobody(bad):
    assert front([[bad, 0], [1, 1]]).tolist() == [False, True]
    assert front([[bad, 0]]).tolist() == [False]
    assert layers([[bad, 0], [1, 1], [2, 2]]).tolist() == [2, 0, 1]
    assert hypervolume([[bad, 0], [1, 1]], [2, 2], ideal=[0, 0]) == 0.25


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_layers_do_not_depend_on_order_or_on_a_monotone_scale(objectives):
    random = np.random.default_rng(objectives)
    points = random.integers(0, 6, (50, objectives)).astype(float)
    order = random.permutation(50)
    assert layers(points[order]).tolist() == layers(points)[order].tolist()
    points[:, 0], before = np.exp(points[:, 0]), layers(points)
    assert layers(points).tolist() == before.tolist()


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_crowding_agrees_with_its_definition(objectives):
    for points in sets_of_points(objectives):
        points = points[np.isfinite(points).all(1)]
        if not len(points):
            continue
        ranges = np.ptp(points, axis=0)
        for depth in range(layers(points).max() + 1):
            layer = points[layers(points) == depth]
            assert crowding(layer, ranges) == pytest.approx(slow_crowding(layer.tolist(), ranges.tolist()))


def test_crowding_is_a_share_of_the_ranges_given_and_not_of_the_layer():
    layer = [[0, 3], [1, 2], [3, 0]]
    assert crowding(layer, [3, 3]).tolist() == [INF, 2.0, INF]
    assert crowding(layer, [6, 30]).tolist() == [INF, 0.6, INF]


@pytest.mark.parametrize("unit", [0.1, 0.3, 0.7, 1e-9, 1e9 / 3])
def test_equal_gaps_tie_in_whatever_unit(unit):
    layer = np.array([[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]]) * [unit, 1] + [unit / 7, 0]
    assert len(set(crowding(layer, np.ptp(layer, axis=0))[1:4])) == 1


def test_copies_have_no_room_and_take_none():
    assert crowding([[0, 4], [2, 2], [2, 2], [4, 0]], [4, 4]).tolist() == [INF, 2.0, 0.0, INF]
    assert crowding([[1, 1], [1, 1]], [4, 4]).tolist() == [INF, 0.0]


def test_an_objective_in_which_a_layer_is_flat_says_nothing():
    assert crowding([[0, 2, 7], [1, 1, 7], [2, 0, 7]], [2, 2, 5]).tolist() == [INF, 2.0, INF]
    assert crowding([[0, 2, 7], [1, 1, 7], [2, 0, 7]], [2, 2, 0]).tolist() == [INF, 2.0, INF]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_agrees_with_inclusion_and_exclusion(objectives):
    random = np.random.default_rng(objectives)
    for size in (0, 1, 2, 5, 8):
        for levels in (3, 9):
            points = random.integers(0, levels, (size, objectives)).astype(float)
            reference = np.full(objectives, levels - 2.0)  # some points lie on it and some beyond
            expected = slow_hypervolume(points.tolist(), reference.tolist())
            assert hypervolume(points, reference) == pytest.approx(expected)
            share = hypervolume(points, reference, ideal=np.zeros(objectives))
            assert share == pytest.approx(expected / (levels - 2.0) ** objectives)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_counts_the_cells_of_a_grid(objectives):
    random = np.random.default_rng(objectives)
    points = random.integers(0, 7, (30, objectives))
    cells = np.indices((6,) * objectives).reshape(objectives, -1).T
    covered = (points[:, None] <= cells).all(2).any(0)
    assert hypervolume(points, np.full(objectives, 6)) == pytest.approx(covered.sum())


def test_one_more_point_never_takes_volume_and_adds_some_exactly_when_nobody_is_as_good():
    random = np.random.default_rng(0)
    points = random.integers(0, 10, (25, 3)).astype(float)
    volumes = [hypervolume(points[:n], [10, 10, 10], ideal=[0, 0, 0]) for n in range(26)]
    for n in range(25):
        as_good = (points[:n] <= points[n]).all(1).any()
        assert (volumes[n + 1] > volumes[n] + 1e-12) == (not as_good)
        assert volumes[n + 1] >= volumes[n] - 1e-12


def test_the_share_is_one_at_the_ideal_and_no_more_beyond_it():
    assert hypervolume([[0, 0]], [2, 4], ideal=[0, 0]) == 1.0
    assert hypervolume([[-5, -5]], [2, 4], ideal=[0, 0]) == 1.0
    assert hypervolume([[-5, 2]], [2, 4], ideal=[0, 0]) == 0.5
    assert hypervolume([[2, 0]], [2, 4], ideal=[0, 0]) == 0.0  # a line has no area
    assert hypervolume([], [2, 4], ideal=[0, 0]) == 0.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (([[1, 2]], [3]), "must agree"),
        (([1, 2], [3, 3]), "must be rows"),
        (([[1, 2]], [3, 3], [3, 0]), "must be below the reference"),
        (([[1, 2]], [3, 3], [0]), "must be below the reference"),
    ],
)
def test_points_that_do_not_fit_their_box_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        hypervolume(*arguments)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_peeling_gives_the_rows_of_each_layer_and_none_that_is_no_point(objectives):
    for points in sets_of_points(objectives):
        depths = np.where(np.isfinite(points).all(axis=1), layers(points), -1)
        wanted = [np.flatnonzero(depths == depth).tolist() for depth in range(depths.max(initial=-1) + 1)]
        assert [rows.tolist() for rows in peeled(points)] == wanted
