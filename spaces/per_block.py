"""Settings of which every block has its own value: ``{each: NODE}`` in a space is a mapping from block numbers.

With ``depth: 3``, ``feed_forward: {each: {choice: [0.5, 1.0]}}`` stands for ``{"0": {choice: [0.5, 1.0]}, "1": ...,
"2": ...}``, so the blocks' dimensions have names such as ``model.feed_forward.0`` and are sampled independently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spaces.combinations import Pick
from spaces.dimensions import ConfigError, Dimension

EACH = "each"


def expand(node: Any, depth: object, where: str) -> Any:
    """``node`` with every ``{each: NODE}`` in it as a mapping from ``"0"``, ``"1"``, ... to ``NODE``.

    Args:
        node: a part of a space.
        depth: the number of blocks.
        where: the name of ``node``.

    Raises:
        ConfigError: ``each`` has other keys beside it, or the depth is a dimension.
    """
    if not isinstance(node, Mapping):
        return node
    if EACH not in node:
        return {name: expand(value, depth, f"{where}.{name}") for name, value in node.items()}
    if len(node) > 1:
        others = ", ".join(str(name) for name in node if name != EACH)
        raise ConfigError(f"{where}: each has no other keys beside it; found {others}")
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ConfigError(f"{where}: each needs a fixed model.depth, a whole number")
    return {str(block): node[EACH] for block in range(depth)}


def by_block(node: Any) -> bool:
    """Whether ``node`` is a mapping from block numbers."""
    return isinstance(node, Mapping) and bool(node) and list(node) == [str(block) for block in range(len(node))]


def same_in_all_blocks(pick: Pick) -> Pick:
    """A ``pick`` for one architecture that gives the dimensions of all blocks what ``pick`` gives the first of them.

    Whether a block can be built does not depend on the others, so the corners of a space need not combine them.
    """
    picked: dict[str, Any] = {}

    def shared(dimension: Dimension, where: str) -> Any:
        base, _, block = where.rpartition(".")
        if not block.isdecimal():
            return pick(dimension, where)
        if base not in picked:
            picked[base] = pick(dimension, where)
        return picked[base]

    return shared
