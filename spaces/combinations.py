"""All combinations of the values of dimensions, of which some are met only in some branches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from spaces.dimensions import Dimension

Pick = Callable[[Dimension, str], Any]


def _the_ends(dimension: Dimension) -> list[Any]:
    return dimension.ends()


def combinations(draw: Callable[[Pick], Any], values: Callable[[Dimension], list[Any]] = _the_ends) -> Iterator[Any]:
    """All results of ``draw`` over ``values`` of the dimensions it meets, also of those met only in some branches.

    An odometer: ``turns`` says which end the n-th dimension met shall take; the last one that has another end left is
    turned, and those after it, which may be different ones next time, start over.
    """
    turns: list[int] = []
    while True:
        met: list[tuple[int, int]] = []
        yield draw(partial(_turn, values, turns, met))
        while met and met[-1][0] == met[-1][1] - 1:
            met.pop()
        if not met:
            return
        turns = [turn for turn, _ in met]
        turns[-1] += 1


def _turn(
    values: Callable[[Dimension], list[Any]],
    turns: Sequence[int],
    met: list[tuple[int, int]],
    dimension: Dimension,
    where: str,
) -> Any:
    taken = values(dimension)
    turn = turns[len(met)] if len(met) < len(turns) else 0
    met.append((turn, len(taken)))
    return taken[turn]
