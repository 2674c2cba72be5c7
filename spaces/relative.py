"""Settings of a mechanism relative to the sequence length, so that one space suits data of any length::

window: {share: 0.05}               a share of the length
rank: {clip: 16}                    tokens, at most one less than the length
rank: {choice: [16, 64], as: clip}  a dimension whose values are such
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spaces.dimensions import RELATIVE


def is_relative(node: object) -> bool:
    """Whether ``node`` is ``{share: ...}`` or ``{clip: ...}``."""
    return isinstance(node, Mapping) and len(node) == 1 and next(iter(node)) in RELATIVE


def in_tokens(settings: Mapping[str, Any], length: int) -> dict[str, Any]:
    """The settings with relative ones in tokens, from 1 to ``length - 1``.

    Raises:
        ValueError: a share or a number to clip is out of range.
    """
    return {name: _tokens(name, value, length) if is_relative(value) else value for name, value in settings.items()}


def _tokens(name: str, node: Mapping[str, Any], length: int) -> int:
    ((kind, value),) = node.items()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "share" and not (number and 0 < value <= 1):
        raise ValueError(f"{name}: share={value!r}: it must be above 0 and at most 1")
    if kind == "clip" and not (number and isinstance(value, int) and value >= 1):
        raise ValueError(f"{name}: clip={value!r}: it must be a whole number from 1")
    return max(1, min(round(value * length) if kind == "share" else value, length - 1))
