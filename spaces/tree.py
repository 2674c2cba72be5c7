"""The nodes of a space as plain nested values: their dimensions, values drawn for them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from spaces.combinations import Pick
from spaces.dimensions import Choice, ConfigError, Dimension, parse
from spaces.per_block import by_block
from spaces.relative import is_relative
from spaces.schema import shown


def bounds_of(node: Any, where: str) -> list[Any]:
    """The bounds of a dimension, or a fixed value."""
    dimension = parse(node, where)
    return [node] if dimension is None else dimension.bounds()


def parsed(node: Any, where: str) -> Any:
    """``node`` with each dimension in place of its description, so that :func:`draw` need not read it each time."""
    dimension = parse(node, where)
    if isinstance(dimension, Choice):
        return replace(dimension, options={label: parsed(each, where) for label, each in dimension.options.items()})
    if dimension is None and isinstance(node, Mapping):
        return {name: parsed(value, f"{where}.{name}") for name, value in node.items()}
    return node if dimension is None else dimension


def draw(node: Any, where: str, pick: Pick) -> Any:
    """``node`` with the value that ``pick`` returns in place of each dimension."""
    dimension = parse(node, where)
    if dimension is not None:
        value = draw(pick(dimension, where), where, pick)
        return {dimension.relative: value} if dimension.relative else value
    if isinstance(node, Mapping):
        return {name: draw(value, f"{where}.{name}", pick) for name, value in node.items()}
    return list(node) if isinstance(node, tuple) else node


def dimensions_in(node: Any, where: str) -> Iterator[tuple[str, Dimension]]:
    """The dimensions in ``node`` with their names, including those of branches."""
    dimension = parse(node, where)
    if dimension is not None:
        yield where, dimension
        for branch in dimension.bounds():
            yield from dimensions_in(branch, where)
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from dimensions_in(value, f"{where}.{name}")


def leaves_of(node: Any, where: str) -> Iterator[str]:
    """The names of the values below a named branch."""
    if isinstance(node, Mapping) and parse(node, where) is None:
        for name, value in node.items():
            if name != "_target_":
                yield f"{where}.{name}"
            yield from leaves_of(value, f"{where}.{name}")


def problems_in(node: Any, where: str) -> Iterator[str]:
    """Error messages for ``node``, including all branches."""
    try:
        dimension = parse(node, where)
    except ConfigError as error:
        yield str(error)
        return
    is_mechanism = where.startswith("attention.") and where.count(".") == 1
    if is_mechanism and not isinstance(node, Mapping):
        yield f"{where}={shown(node)}: it must be a mapping with the key _target_ and the settings of a mechanism"
    elif dimension is not None:
        for branch in dimension.bounds():
            yield from problems_in(branch, where)
    elif isinstance(node, Mapping):
        has_none = (
            by_block(node)
            or where in ("input", "attention", "train")
            or (is_relative(node) and where.startswith("attention."))
        )
        if "_target_" not in node and not has_none:
            no_class = "names no class; write _target_: package.module.Class"
            no_value = f"{shown(node)} is no value; a dimension has the key choice, int or float"
            yield f"{where}: {no_class if where == 'model' or is_mechanism else no_value}"
            return
        for name, value in node.items():
            yield from problems_in(value, f"{where}.{name}")
