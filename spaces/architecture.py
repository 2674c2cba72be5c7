"""An architecture: one point of a space, as plain nested values; its keys for comparison and its descriptions.

It has the sections ``input`` (settings of the task's input, if the space has any), ``model``, ``pattern`` (the name of
a mechanism per block), ``roles`` where a decoder's mechanisms differ from the encoder's, ``attention`` (the settings of
those mechanisms) and ``train``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from typing import Any

from spaces.relative import is_relative

Architecture = dict[str, Any]
SIZES = ("model.depth", "model.width")


def key(architecture: Mapping[str, Any]) -> str:
    """A string that is equal for equal architectures; studies store it and compare by it."""
    return json.dumps(architecture, sort_keys=True)


def network_key(architecture: Mapping[str, Any]) -> str:
    """A string that is equal for architectures that differ in training settings only, so have the same costs."""
    return key({section: settings for section, settings in architecture.items() if section != "train"})


def trained_key(architecture: Mapping[str, Any]) -> str:
    """A string that is equal for architectures with the same trained weights: the quantization follows the training."""
    model = {name: value for name, value in architecture.get("model", {}).items() if name != "quantization"}
    return key({**architecture, "model": model})


def pattern(architecture: Mapping[str, Any]) -> str:
    """The mechanisms block by block, such as ``longformer+softmax*2``; one name if all blocks have the same."""
    names = architecture.get("pattern", [])
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    return str(names[0]) if len(runs) == 1 else "+".join(f"{name}*{n}" if n > 1 else name for name, n in runs)


def settings(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """All values by dotted name, such as ``model.depth``, without classes and pattern."""
    sections = {name: architecture.get(name, {}) for name in ("input", "model", "roles", "attention", "train")}
    return dict(_leaves(sections, ()))


def features(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """What models of architectures learn from: :func:`settings`, and the mechanisms block by block as a tuple."""
    return {"pattern": tuple(architecture.get("pattern", ())) or None, **settings(architecture)}


def _leaves(node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if is_relative(value):
            yield ".".join((*path, name)), next(iter(value.values()))
        elif isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        elif name != "_target_":
            yield ".".join((*path, name)), value


def short_settings(architecture: Mapping[str, Any], names: Collection[str] | None = None) -> dict[str, Any]:
    """The settings by their shortest unique names: ``{"depth": 2, "rank": 32, ...}``.

    With ``names``, such as :meth:`spaces.space.Space.dimension_names`, only those settings. The values of all blocks
    are one text, such as ``"1,0.5,0.5"``.
    """
    return dict(_shown(architecture, names).values())


def _shown(architecture: Mapping[str, Any], names: Collection[str] | None) -> dict[str, tuple[str, Any]]:
    """By dotted name: the shortest unique name, and the value."""
    values = _joined({name: value for name, value in settings(architecture).items() if names is None or name in names})
    last = [name.split(".")[-1] for name in values]
    return {
        name: (short if last.count(short) == 1 else ".".join(name.split(".")[-2:]), value)
        for (name, value), short in zip(values.items(), last, strict=True)
    }


def _joined(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with those of the blocks, ``name.0``, ``name.1`` and so on, as one."""
    joined: dict[str, Any] = {}
    for name, value in values.items():
        base, _, block = name.rpartition(".")
        if not block.isdecimal():
            joined[name] = value
        else:
            joined[base] = f"{joined[base]},{format_value(value)}" if base in joined else format_value(value)
    return joined


def describe(architecture: Mapping[str, Any], names: Collection[str] | None = None) -> str:
    """One line: ``linformer depth=2 width=32 ... rank=16``; ``names`` as in :func:`short_settings`.

    Where none of these settings exist, as in a space whose every dimension is fixed, depth and width are shown.
    """
    if names is not None and not short_settings(architecture, names):
        names = SIZES
    values = " ".join(f"{name}={format_value(value)}" for name, value in short_settings(architecture, names).items())
    return f"{pattern(architecture)} {values}".strip()


def brief(architecture: Mapping[str, Any], names: Collection[str] | None = None) -> str:
    """A short line for lists: ``longformer 4x128 window=64 lr=0.01``, where 4 blocks have a width of 128."""
    size = [architecture.get("model", {}).get(name) for name in ("depth", "width")]
    if None in size:
        return describe(architecture, names)
    shown = [(name, *each) for name, each in _shown(architecture, names).items() if name not in SIZES]
    # Those of the mechanism first, which tell most; those of training last.
    order = sorted(shown, key=lambda each: (not each[0].startswith("attention."), each[0].startswith("train.")))
    listed = " ".join(f"{short}={format_value(value)}" for _, short, value in order)
    return f"{pattern(architecture)} {size[0]}x{size[1]} {listed}".strip()


def format_value(value: object) -> str:
    """A value as text, floats with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
