"""Dominance, fronts, crowding and hypervolume, in numpy alone. Every objective is minimised.

Points are rows ``(points, objectives)``. A point dominates another if it is nowhere worse and somewhere better; equal
points do not dominate each other. A row that holds NaN or an infinity is no point: it is never on a front, stands
behind the last layer, and adds no volume.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def dominating(points: ArrayLike, point: ArrayLike) -> Mask:
    """Which of ``points`` dominate ``point`` ``(objectives,)``."""
    rows, one = _rows(points), np.asarray(point, dtype=np.float64)
    return np.asarray(_finite(rows) & (rows <= one).all(axis=1) & (rows < one).any(axis=1))


def front(points: ArrayLike) -> Mask:
    """Which points no other point dominates; equal points are in or out together."""
    rows = _rows(points)
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[next(peeled(rows), slice(0))] = True
    return mask


def layers(points: ArrayLike) -> NDArray[np.intp]:
    """The layer of every point: 0 on the front, 1 on the front of what remains without it, and so on.

    O(n log n) time for up to two objectives (Jensen 2003); beyond, n * n bits and O(n * n * layers) bit operations.
    """
    rows = _rows(points)
    finite = _finite(rows)
    distinct, which = _distinct(rows[finite])
    if rows.shape[1] <= 2:
        depths = _depths_in_the_plane(distinct)
    else:
        depths = np.empty(len(distinct), dtype=np.intp)
        for depth, members in enumerate(_fronts(distinct)):
            depths[members] = depth
    result = np.full(len(rows), depths.max(initial=-1) + 1, dtype=np.intp)
    result[finite] = depths[which]
    return result


def peeled(points: ArrayLike) -> Iterator[NDArray[np.intp]]:
    """The rows of each layer, ascending, the front first; a layer that isn't asked for costs little."""
    rows = _rows(points)
    finite = np.flatnonzero(_finite(rows))
    distinct, which = _distinct(rows[finite])
    for members in _fronts_in_the_plane(distinct) if rows.shape[1] <= 2 else _fronts(distinct):
        out = np.zeros(len(distinct), dtype=np.bool_)
        out[members] = True
        yield finite[out[which]]


def crowding(layer: ArrayLike, ranges: ArrayLike) -> Floats:
    """How much room every point of one layer has: infinite at the ends, else its neighbours' distance.

    Deb et al., "NSGA-II", 2002: summed over the objectives, the gap between the next lower and the next higher value
    as a share of ``ranges`` ``(objectives,)``, the whole set's range. An objective in which the layer's values are all
    equal says nothing. Of equal points the first has the room and its copies have none.
    """
    rows = _rows(layer)
    distinct, which = _distinct(rows)
    room = np.zeros(len(distinct))
    for values, extent in zip(distinct.T, np.asarray(ranges, dtype=np.float64), strict=True):
        steps, at = np.unique(values, return_inverse=True)
        if len(steps) > 1:
            gaps = np.full(len(steps), np.inf)
            gaps[1:-1] = (steps[2:] - steps[:-2]) / extent
            room += gaps[at]
    if len(distinct) == 1:
        room[:] = np.inf
    first = np.empty(len(distinct), dtype=np.intp)
    first[which[::-1]] = np.arange(len(rows))[::-1]  # the last one written stays
    result = np.zeros(len(rows))
    # Rounded, so that equal gaps stay equal in whatever unit an objective is given.
    result[first] = np.round(room, 12)
    return result


def hypervolume(points: ArrayLike, reference: ArrayLike, ideal: ArrayLike | None = None) -> float:
    """The volume between ``points`` and ``reference`` ``(objectives,)``, exact for any number of objectives.

    A point beyond the reference in some objective adds nothing. With ``ideal`` ``(objectives,)`` the answer is a share
    in [0, 1] of the box between reference and ideal, and what lies beyond the ideal is cut off.

    Raises:
        ValueError: the numbers of objectives differ, or ``ideal`` is not below ``reference`` everywhere.
    """
    end = np.asarray(reference, dtype=np.float64)
    rows = _rows(points, objectives=len(end))
    if rows.shape[1] != len(end):
        raise ValueError(f"points of {rows.shape[1]} objectives and a reference of {len(end)}: they must agree")
    rows, box = rows[_finite(rows)], 1.0
    if ideal is not None:
        start = np.asarray(ideal, dtype=np.float64)
        if start.shape != end.shape or not (start < end).all():
            raise ValueError(f"ideal {start.tolist()}: it must be below the reference {end.tolist()} everywhere")
        rows, box = np.maximum(rows, start), float(np.prod(end - start))
    return _volume(rows[(rows < end).all(1)], end) / box


def _volume(rows: Floats, end: Floats) -> float:
    """The volume under ``end`` of points that all lie strictly below it."""
    if not len(rows):
        return 0.0
    if len(end) == 1:
        return float(end[0] - rows.min())
    # Slices along the last objective; a slice's cross-section is the volume of all points that begin below it.
    rows = rows[front(rows)]
    rows = rows[np.argsort(rows[:, -1], kind="stable")]
    thickness = np.diff(rows[:, -1], append=end[-1])
    if len(end) == 2:  # what the recursion would do, at once: along a front the latest slice is always the longest
        return float(((end[0] - rows[:, 0]) * thickness).sum())
    return sum(_volume(rows[: i + 1, :-1], end[:-1]) * float(depth) for i, depth in enumerate(thickness) if depth > 0)


def _rows(points: ArrayLike, objectives: int = 1) -> Floats:
    """``points`` as ``(points, objectives)``; ``objectives`` says how many none at all would have had."""
    rows = np.asarray(points, dtype=np.float64)
    if rows.size == 0 and rows.ndim < 2:
        return np.empty((0, objectives))
    if rows.ndim != 2:
        raise ValueError(f"points of shape {rows.shape}: they must be rows (points, objectives)")
    return rows


def _finite(rows: Floats) -> Mask:
    return np.asarray(np.isfinite(rows).all(axis=1))


def _distinct(rows: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The different rows in lexicographic order, and for every row which of them it is.

    What ``np.unique(axis=0)`` does, several times faster.
    """
    order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    new = np.ones(len(rows), dtype=np.bool_)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    which = np.empty(len(rows), dtype=np.intp)
    which[order] = np.cumsum(new) - 1
    return rows[new], which


def _depths_in_the_plane(distinct: Floats) -> NDArray[np.intp]:
    """Layers of distinct points of one or two objectives in lexicographic order."""
    depths = []
    lowest: list[float] = []  # per layer the second value of its last point, its lowest; rising from layer to layer
    for second in (distinct[:, 1] if distinct.shape[1] == 2 else np.zeros(len(distinct))).tolist():
        depth = bisect_right(lowest, second)
        if depth == len(lowest):
            lowest.append(second)
        else:
            lowest[depth] = second
        depths.append(depth)
    return np.asarray(depths, dtype=np.intp)


def _fronts_in_the_plane(distinct: Floats) -> Iterator[NDArray[np.intp]]:
    """The same, one front after the other: quicker where only the first few are asked for."""
    left = np.arange(len(distinct))
    second = distinct[:, 1] if distinct.shape[1] == 2 else np.zeros(len(distinct))
    while len(left):
        values = second[left]
        free = values < np.concatenate([[np.inf], np.minimum.accumulate(values)[:-1]])
        yield left[free]
        left = left[~free]


def _fronts(distinct: Floats) -> Iterator[NDArray[np.intp]]:
    """Layers of distinct points of any number of objectives in lexicographic order, one front after the other."""
    count = len(distinct)
    own = np.zeros((count, count // 64 + 1), dtype=np.uint64)  # sets of points as rows of bits
    at = np.arange(count)
    own[at, at // 64] = np.uint64(1) << (at % 64).astype(np.uint64)
    # Whoever comes before in lexicographic order and is nowhere worse dominates: the points are distinct.
    dominators = np.bitwise_or.accumulate(own) & ~own
    for values in distinct.T[1:]:
        order = np.argsort(values)
        ascending = values[order]
        no_worse = np.empty_like(own)
        no_worse[order] = np.bitwise_or.accumulate(own[order])[np.searchsorted(ascending, ascending, side="right") - 1]
        dominators &= no_worse
    dominators = np.ascontiguousarray(dominators.T)  # reduced along the first axis, which is several times faster
    left, rest = np.ones(count, dtype=np.bool_), np.bitwise_or.reduce(own)
    while left.any():
        blocked = np.bitwise_or.reduce(dominators & rest[:, None])
        members = np.flatnonzero(left & (blocked == 0))
        yield members
        left[members] = False
        rest &= ~np.bitwise_or.reduce(own[members])
