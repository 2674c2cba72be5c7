"""An architecture: one point of a space, as plain nested values, and how it is compared and shown.

It has the sections ``model``, ``pattern`` (one mechanism's name a block), ``roles`` where a decoder's mechanisms differ
from the encoder's, ``attention`` (the knobs of those mechanisms) and ``train``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

Architecture = dict[str, Any]


def key(architecture: Mapping[str, Any]) -> str:
    """Equal for equal architectures: the text a study stores and compares them by."""
    return json.dumps(architecture, sort_keys=True)


def network_key(architecture: Mapping[str, Any]) -> str:
    """Equal for architectures of the same network: they may be trained differently, and cost the same."""
    return key({section: settings for section, settings in architecture.items() if section != "train"})


def pattern(architecture: Mapping[str, Any]) -> str:
    """The mechanisms block by block, ``longformer+softmax``; one name if they are all the same."""
    names = architecture.get("pattern", [])
    return str(names[0]) if len(set(names)) == 1 else "+".join(names)


def settings(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Every value by its dotted place, such as ``model.depth``, without the classes and the pattern."""
    sections = {name: architecture.get(name, {}) for name in ("model", "roles", "attention", "train")}
    return dict(_leaves(sections, ()))


def _leaves(node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        elif name != "_target_":
            yield ".".join((*path, name)), value


def named(architecture: Mapping[str, Any], places: Collection[str] | None = None) -> dict[str, Any]:
    """The settings by the shortest names that tell them apart: ``{"depth": 2, "rank": 32, ...}``.

    With ``places``, the dotted places of :meth:`spaces.space.Space.places`, only those.
    """
    values = {place: value for place, value in settings(architecture).items() if places is None or place in places}
    last = [place.split(".")[-1] for place in values]
    return {
        name if last.count(name) == 1 else ".".join(place.split(".")[-2:]): value
        for (place, value), name in zip(values.items(), last, strict=True)
    }


def describe(architecture: Mapping[str, Any], places: Collection[str] | None = None) -> str:
    """One line: ``linformer depth=2 width=32 ... rank=16``; ``places`` as in :func:`named`."""
    values = " ".join(f"{name}={brief(value)}" for name, value in named(architecture, places).items())
    return f"{pattern(architecture)} {values}".strip()


def brief(value: object) -> str:
    """A value as short as it stays readable."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
