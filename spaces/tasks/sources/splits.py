"""Splitting data into train, validation and test, and selecting classes and examples; all deterministic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from spaces.tasks import SPLITS, Split, check_whole

T = TypeVar("T")
HELD_OUT: tuple[Split, ...] = ("validation", "test")
MIN_TO_SPLIT = 3  # one for each split


def split_by_hash(
    items: Iterable[T],
    *,
    key: Callable[[T], str | bytes] = str,
    stratify: Callable[[T], Hashable] | None = None,
    held_out: Collection[Split] = HELD_OUT,
) -> dict[Split, list[T]]:
    """Split items about 8:1:1 into train, validation and test, by the hashes of their keys alone.

    Items keep their order. Fewer than three keys all go to train.

    Args:
        items: what to split.
        key: items with the same key (a speaker, a text) go to the same split.
        stratify: a class; each class is split 8:1:1 by itself. A key that has several classes counts for its first.
        held_out: the splits to fill; the share of the others stays in train.
    """
    items = list(items)
    class_of_key: dict[str | bytes, Hashable] = {}
    for item in items:
        class_of_key.setdefault(key(item), stratify(item) if stratify else None)
    keys_of_class: dict[Hashable, list[str | bytes]] = {}
    for name in sorted(class_of_key, key=digest):
        keys_of_class.setdefault(class_of_key[name], []).append(name)
    split_of: dict[str | bytes, Split] = {}
    for names in keys_of_class.values():
        tenth = max(1, round(len(names) / 10)) if len(names) >= MIN_TO_SPLIT else 0
        for at, split in enumerate(HELD_OUT):
            if split in held_out:
                split_of |= dict.fromkeys(names[at * tenth : (at + 1) * tenth], split)
    splits: dict[Split, list[T]] = {split: [] for split in SPLITS}
    for item in items:
        splits[split_of.get(key(item), "train")].append(item)
    return splits


def subset_by_hash(items: Sequence[T], limit: int, *, key: Callable[[T], str | bytes]) -> list[T]:
    """At most ``limit`` items in their order, chosen by the hashes of their keys."""
    if len(items) <= limit:
        return list(items)
    chosen = sorted(range(len(items)), key=lambda at: digest(key(items[at])))[:limit]
    return [items[at] for at in sorted(chosen)]


def balanced(
    files: Iterable[str], limit: int, split: Split, classes: int, *, label: Callable[[str], Hashable]
) -> list[str]:
    """At most ``limit`` files, equally many of each class, chosen by the hashes of their names; sorted.

    Raises:
        ValueError: ``limit`` is below the number of classes.
    """
    check_whole(classes, **{split: limit})
    by_class: dict[Hashable, list[str]] = {}
    for file in sorted(files, key=digest):
        by_class.setdefault(label(file), []).append(file)
    return sorted(file for found in by_class.values() for file in found[: limit // classes])


def largest_classes(sizes: Mapping[str, int], classes: int) -> tuple[str, ...]:
    """The names of at most ``classes`` classes, the largest first, ties by name."""
    return tuple(sorted(sizes, key=lambda name: (-sizes[name], name))[:classes])


def digest(key: str | bytes) -> bytes:
    """SHA-256 of a key, for an order that is random and the same on every machine."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()
