"""Parallel text: two files whose lines are translations of each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from spaces.tasks import SPLITS, Split
from spaces.tasks.sources.splits import split_by_hash

log = logging.getLogger(__name__)
NAMES: Mapping[Split, Sequence[str]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


def read(folder: Path, source: str, target: str) -> dict[Split, list[Pair]]:
    """The pairs of ``train.SOURCE`` and ``train.TARGET``, and of the files of validation and test.

    Without these, train is split about 8:1:1; equal source sentences go to the same split.

    Raises:
        ValueError: a file is missing, is not UTF-8 (the line is named), or has fewer lines than its counterpart.
    """
    names = {
        split: next((name for name in NAMES[split] if (folder / f"{name}.{source}").exists()), None) for split in NAMES
    }
    if names["train"] is None:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ValueError(f"folder={str(folder)!r}: no train.{source}; there is {there}")
    missing = [split for split in SPLITS if names[split] is None]
    if len(missing) == 1:
        accepted = ", ".join(f"{name}.{source}" for name in NAMES[missing[0]])
        raise ValueError(f"folder={str(folder)!r}: none of {accepted}; give both validation and test, or neither")
    if not missing:
        return {
            split: _pairs(folder / f"{name}.{source}", folder / f"{name}.{target}") for split, name in names.items()
        }
    pairs = _pairs(folder / f"train.{source}", folder / f"train.{target}")
    return split_by_hash(pairs, key=lambda pair: pair.source)


def fitting(
    pairs: Sequence[Pair], split: Split, encode: Callable[[Sequence[str]], Sequence[Sequence[int]]], most: Sequence[int]
) -> list[Pair]:
    """The pairs whose sentences have at least 1 and at most so many tokens; if others are skipped, with a warning.

    Args:
        pairs: of a split.
        split: its name, for messages.
        encode: maps texts to their ids.
        most: tokens of a source and of a target.

    Raises:
        ValueError: there are none.
    """
    columns = [encode([pair[side] for pair in pairs]) for side in range(len(most))]
    kept = [
        pair
        for pair, *both in zip(pairs, *columns, strict=True)
        if all(0 < len(ids) <= limit for ids, limit in zip(both, most, strict=True))
    ]
    if not kept:
        raise ValueError(f"no {split} pairs that fit length and answer_length")
    if len(kept) < len(pairs):
        summary = f"{len(pairs) - len(kept)} of {len(pairs)} {split} pairs"
        log.warning("skipped %s: empty, or longer than length or answer_length", summary)
    return kept


def _pairs(source: Path, target: Path) -> list[Pair]:
    sources, targets = _lines(source), _lines(target)
    if len(sources) != len(targets):
        counts = f"{source.name} has {len(sources)} lines and {target.name} {len(targets)}"
        raise ValueError(f"folder={str(source.parent)!r}: {counts}; line by line they must be translations")
    return [Pair(*pair) for pair in zip(sources, targets, strict=True)]


def _lines(path: Path) -> list[str]:
    """The lines of a file, with runs of whitespace replaced by one space."""
    if not path.exists():
        raise ValueError(f"folder={str(path.parent)!r}: no {path.name}")
    lines = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            lines.append(" ".join(line.decode().split()))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: line {number} is not UTF-8: {error.reason}") from error
    return lines[:-1] if lines[-1] == "" else lines  # nothing follows the final newline
