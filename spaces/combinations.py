"""Enumeration of all combinations of the values of dimensions, including conditional ones.

Which dimensions exist may depend on the values of others, so the set of dimensions is not known in advance. Each
combination is produced by a call of a function that asks for the values it needs, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from spaces.dimensions import Dimension, Value

Pick = Callable[[Dimension, str], Any]  # the value of a dimension, given its name


def _bounds(dimension: Dimension) -> list[Any]:
    return dimension.bounds()


def combinations(build: Callable[[Pick], Any], values: Callable[[Dimension], list[Any]] = _bounds) -> Iterator[Any]:
    """The results of ``build`` for all combinations of the ``values`` of the dimensions that it picks.

    A depth-first traversal of the decision tree: each call replays a path of choices, then takes first values; the next
    path increments the last choice that has a value left.
    """
    path: list[int] = []
    while True:
        taken: list[tuple[int, int]] = []  # of each dimension picked: the index of its value, and the number of values

        def pick(dimension: Dimension, name: str, path: list[int] = path, taken: list[Any] = taken) -> Any:
            options = values(dimension)
            index = path[len(taken)] if len(taken) < len(path) else 0
            taken.append((index, len(options)))
            return options[index]

        yield build(pick)
        while taken and taken[-1][0] == taken[-1][1] - 1:
            taken.pop()
        if not taken:
            return
        path = [index for index, _ in taken]
        path[-1] += 1


def labels_of(build: Callable[[Pick], Any]) -> Callable[[Pick], dict[str, Value]]:
    """A function like ``build`` that returns the label of each dimension picked, by name.

    Its ``pick`` returns labels with values, as :meth:`~spaces.dimensions.Choice.values` lists them.
    """

    def labels(pick: Pick) -> dict[str, Value]:
        found: dict[str, Value] = {}

        def note(dimension: Dimension, where: str) -> Any:
            found[where], value = pick(dimension, where)
            return value

        build(note)
        return found

    return labels
