"""Pareto dominance, non-dominated sorting, crowding distance and hypervolume, in numpy alone.

All objectives are minimised. Points are rows ``(points, objectives)``. A point dominates another if it is no worse in
any objective and better in at least one; equal points do not dominate each other. A row that holds NaN or an infinity
is on no front, dominates nothing and adds no volume.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def dominating(points: ArrayLike, point: ArrayLike) -> Mask:
    """Which of ``points`` dominate ``point`` ``(objectives,)``."""
    rows, one = _rows(points), np.asarray(point, dtype=np.float64)
    return np.asarray(_finite(rows) & (rows <= one).all(axis=1) & (rows < one).any(axis=1))


def non_dominated(points: ArrayLike) -> Mask:
    """Which points are on the Pareto front, ``(points,)``; equal points are on it or not together."""
    rows = _rows(points)
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[next(iter_fronts(rows), slice(0))] = True
    return mask


def iter_fronts(points: ArrayLike) -> Iterator[NDArray[np.intp]]:
    """Non-dominated sorting: the row numbers of each front, ascending; the first front comes first.

    Each front is the non-dominated set of what the fronts before it leave. Lazy: only requested fronts are computed.
    O(n log n) time for a front of up to two objectives; beyond, n * n bits and O(n * n) bit operations.
    """
    rows = _rows(points)
    finite = np.flatnonzero(_finite(rows))
    unique, inverse = _unique_rows(rows[finite])
    for members in _fronts_2d(unique) if rows.shape[1] <= 2 else _fronts_nd(unique):
        is_member = np.zeros(len(unique), dtype=np.bool_)
        is_member[members] = True
        yield finite[is_member[inverse]]


def crowding_distance(front: ArrayLike, ranges: ArrayLike) -> Floats:
    """Crowding distance ``(points,)`` of the points of one front.

    Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, section III.B: the sum over the
    objectives of ``(next higher value - next lower value) / range``, infinite for the extreme points of an objective.
    ``ranges`` ``(objectives,)`` are those of the whole set of points. An objective that is constant on the front is
    left out. Of equal points the first has the distance and the others 0.
    """
    rows = _rows(front)
    unique, inverse = _unique_rows(rows)
    distance = np.zeros(len(unique))
    for column, extent in zip(unique.T, np.asarray(ranges, dtype=np.float64), strict=True):
        values, at = np.unique(column, return_inverse=True)
        if len(values) > 1:
            gaps = np.full(len(values), np.inf)
            gaps[1:-1] = (values[2:] - values[:-2]) / extent
            distance += gaps[at]
    if len(unique) == 1:
        distance[:] = np.inf
    first = np.empty(len(unique), dtype=np.intp)
    first[inverse[::-1]] = np.arange(len(rows))[::-1]  # of equal points the first is written last
    result = np.zeros(len(rows))
    # Rounded, so that equal gaps stay equal in whatever unit an objective is given.
    result[first] = np.round(distance, 12)
    return result


def hypervolume(points: ArrayLike, reference: ArrayLike, ideal: ArrayLike | None = None) -> float:
    """Hypervolume of ``points`` with respect to ``reference`` ``(objectives,)``, exact for any number of objectives.

    A point beyond the reference in some objective adds nothing. With ``ideal`` ``(objectives,)`` the result is a share
    in [0, 1] of the box between reference and ideal, to which the points are clipped.

    Raises:
        ValueError: the numbers of objectives differ, or ``ideal`` is not below ``reference`` everywhere.
    """
    end = np.asarray(reference, dtype=np.float64)
    rows = _rows(points, objectives=len(end))
    if rows.shape[1] != len(end):
        raise ValueError(f"points of {rows.shape[1]} objectives but a reference of {len(end)}")
    rows, box = rows[_finite(rows)], 1.0
    if ideal is not None:
        start = np.asarray(ideal, dtype=np.float64)
        if start.shape != end.shape or not (start < end).all():
            raise ValueError(f"ideal {start.tolist()}: it must be below the reference {end.tolist()} everywhere")
        rows, box = np.maximum(rows, start), float(np.prod(end - start))
    return _volume(rows[(rows < end).all(1)], end) / box


def _volume(rows: Floats, end: Floats) -> float:
    """Hypervolume of points that are all strictly below the reference ``end``."""
    if not len(rows):
        return 0.0
    if len(end) == 1:
        return float(end[0] - rows.min())
    # Slice along the last objective: the cross-section of a slice is the hypervolume of the points that start below it.
    rows = rows[non_dominated(rows)]
    rows = rows[np.argsort(rows[:, -1], kind="stable")]
    thickness = np.diff(rows[:, -1], append=end[-1])
    if len(end) == 2:  # the recursion in closed form: along a front the first objective falls as the second rises
        return float(((end[0] - rows[:, 0]) * thickness).sum())
    return sum(_volume(rows[: i + 1, :-1], end[:-1]) * float(depth) for i, depth in enumerate(thickness) if depth > 0)


def _rows(points: ArrayLike, objectives: int = 1) -> Floats:
    """``points`` as ``(points, objectives)``; without any points, ``(0, objectives)``."""
    rows = np.asarray(points, dtype=np.float64)
    if rows.size == 0 and rows.ndim < 2:
        return np.empty((0, objectives))
    if rows.ndim != 2:
        raise ValueError(f"points of shape {rows.shape}: they must be rows (points, objectives)")
    return rows


def _finite(rows: Floats) -> Mask:
    return np.asarray(np.isfinite(rows).all(axis=1))


def _unique_rows(rows: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The unique rows in lexicographic order and the inverse, as ``np.unique(axis=0)`` but several times faster."""
    order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    new = np.ones(len(rows), dtype=np.bool_)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    inverse = np.empty(len(rows), dtype=np.intp)
    inverse[order] = np.cumsum(new) - 1
    return rows[new], inverse


def _fronts_2d(unique: Floats) -> Iterator[NDArray[np.intp]]:
    """Fronts of unique points of one or two objectives in lexicographic order.

    In this order a point is non-dominated if its second value is below that of all points before it.
    """
    left = np.arange(len(unique))
    second = unique[:, 1] if unique.shape[1] == 2 else np.zeros(len(unique))
    while len(left):
        values = second[left]
        on_front = values < np.concatenate([[np.inf], np.minimum.accumulate(values)[:-1]])
        yield left[on_front]
        left = left[~on_front]


def _fronts_nd(unique: Floats) -> Iterator[NDArray[np.intp]]:
    """Fronts of unique points of any number of objectives in lexicographic order; sets of points are rows of bits."""
    count = len(unique)
    singletons = np.zeros((count, count // 64 + 1), dtype=np.uint64)
    at = np.arange(count)
    singletons[at, at // 64] = np.uint64(1) << (at % 64).astype(np.uint64)
    # A point dominates another if it comes before it in lexicographic order and is no worse in any objective.
    dominators = np.bitwise_or.accumulate(singletons) & ~singletons
    for values in unique.T[1:]:
        order = np.argsort(values)
        ascending = values[order]
        no_worse = np.empty_like(singletons)
        last_equal = np.searchsorted(ascending, ascending, side="right") - 1
        no_worse[order] = np.bitwise_or.accumulate(singletons[order])[last_equal]
        dominators &= no_worse
    dominators = np.ascontiguousarray(dominators.T)  # a reduction along the first axis is several times faster
    left, left_bits = np.ones(count, dtype=np.bool_), np.bitwise_or.reduce(singletons)
    while left.any():
        dominated = np.bitwise_or.reduce(dominators & left_bits[:, None])
        members = np.flatnonzero(left & (dominated == 0))
        yield members
        left[members] = False
        left_bits &= ~np.bitwise_or.reduce(singletons[members])
