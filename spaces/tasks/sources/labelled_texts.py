"""Texts that have labels, as bytes: how rows of a user's own data become examples, wherever they were read."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

from spaces.tasks import SPLITS, Batch, Split, Task, TaskSpec, check_whole
from spaces.tasks.sources.bad_rows import warn_or_refuse

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """What a source holds: a text and its label, as they were found there, or why there is none."""

    where: str  # in its source, such as "line 7"
    text: object = None
    label: object = None
    problem: str | None = None


class Source(NamedTuple):
    """Where rows come from, and the rows."""

    name: str
    rows: Iterable[Row]


class Example(NamedTuple):
    """The first bytes of a text, and the name of its class."""

    content: bytes
    label: str


class LabelledTexts(Task):
    """Fraction of texts whose label is told; tokens are the bytes of UTF-8.

    A split that has no source of its own gets a tenth of the different texts of training's, in an order that nothing
    but the texts decides. So copies of a text come into the same split, wherever they stand.

    Args:
        text: the column of texts.
        label: the column of labels, another one.
        length: bytes at most; longer texts are cut, and their share is told.
        classes: at most; those with the most texts are kept, and what is left out is told.
        train: texts to learn from at most, of all there are evenly.
        validation: texts that the search judges by at most, likewise.
        test: texts that the front is reported on at most, likewise.
    """

    def __init__(
        self, *, text: str, label: str, length: int, classes: int, train: int, validation: int, test: int
    ) -> None:
        check_whole(1, length=length, train=train, validation=validation, test=test)
        check_whole(2, classes=classes)
        if text == label:
            raise ValueError(f"text={text!r}, label={label!r}: they must be two columns")
        self.text, self.label, self.length, self.classes = text, label, length, classes
        self.most: Mapping[Split, int] = {"train": train, "validation": validation, "test": test}

    @abstractmethod
    def sources(self) -> Mapping[Split, Source]:
        """Training's source, and those of other splits that have one.

        Raises:
            ValueError: one can't be read, or lacks a column.
        """

    @cached_property
    def rows(self) -> dict[Split, list[Example]]:
        """What is kept of all sources, by split."""
        found = {split: self._usable(source) for split, source in self.sources().items()}
        kept = self._largest_classes(example.label for examples in found.values() for example in examples)
        found = {split: [each for each in examples if each.label in kept] for split, examples in found.items()}
        order = sorted({example.content for example in found["train"]}, key=_digest)
        tenth = max(1, round(len(order) / 10))
        free: dict[bytes, Split] = {}
        parts: Mapping[Split, list[bytes]] = {"validation": order[:tenth], "test": order[tenth : 2 * tenth]}
        for split, contents in parts.items():
            if split not in found:
                free |= dict.fromkeys(contents, split)
        splits: dict[Split, list[Example]] = {split: [] for split in SPLITS} | found | {"train": []}
        for example in found["train"]:
            splits[free.get(example.content, "train")].append(example)
        return {split: _spread(examples, self.most[split]) for split, examples in splits.items()}

    def _usable(self, source: Source) -> list[Example]:
        kept, problems, cut = list[Example](), list[str](), 0
        for row in source.rows:
            try:
                if row.problem:
                    raise ValueError(row.problem)
                content = _content(row.text)
                kept.append(Example(content[: self.length], _label(row.label)))
                cut += len(content) > self.length
            except ValueError as error:
                problems.append(f"{row.where}: {error}")
        warn_or_refuse(problems, len(kept) + len(problems), where=source.name, what="rows")
        if cut:
            share = f"{cut} of {len(kept)} texts ({cut / len(kept):.0%})"
            log.warning("%s: %s are longer than length=%d bytes and are cut", source.name, share, self.length)
        return kept

    def _largest_classes(self, labels: Iterable[str]) -> set[str]:
        counts = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
        if rest := counts[self.classes :]:
            rows, (rare, _) = sum(count for _, count in rest), rest[0]
            told = f"{len(rest)} of {len(counts)} labels with {rows} rows, such as {rare!r}"
            log.warning("left out: %s; classes=%d are kept", told, self.classes)
        return {name for name, _ in counts[: self.classes]}

    @cached_property
    def names(self) -> Sequence[str]:  # type: ignore[override]
        """Labels in the order of their class numbers: whole numbers by size, then others by alphabet."""
        return sorted({label for examples in self.rows.values() for _, label in examples}, key=_order)

    @cached_property
    def spec(self) -> TaskSpec:  # type: ignore[override]
        """The longest text is as long as the data have it, ``length`` at most."""
        longest = max((len(content) for examples in self.rows.values() for content, _ in examples), default=1)
        return TaskSpec(length=longest, vocabulary=256, classes=len(self.names), per_token=False)

    @cached_property
    def chance(self) -> float:  # type: ignore[override]
        """What the most frequent label of validation scores, whatever the text."""
        counts = Counter(label for _, label in self.rows["validation"])
        return max(counts.values()) / counts.total()

    def examples(self, split: Split) -> Batch:
        """Bytes ``(texts, length)``, padded, and classes ``(texts,)``."""
        rows, length = self.rows[split], self.spec.length
        inputs = torch.zeros(len(rows), length, dtype=torch.int64)
        for at, (content, _) in enumerate(rows):
            inputs[at, : len(content)] = torch.tensor(list(content))
        padding = torch.arange(length) >= torch.tensor([len(content) for content, _ in rows])[:, None]
        labels = torch.tensor([self.names.index(label) for _, label in rows], dtype=torch.int64)
        return Batch(inputs, padding if padding.any() else None, labels)


def check_columns(there: Iterable[str], *, source: str, text: str, label: str) -> None:
    """Raise ``ValueError``, listing what is there, unless both columns are."""
    names = list(there)
    listed = ", ".join(name[:40] for name in names) or "none"  # where there is no header, they are texts
    listed = listed.encode(errors="backslashreplace").decode()
    for setting, name in (("text", text), ("label", label)):
        if name not in names:
            raise ValueError(f"{setting}={name!r}: {source} has no such column; there are {listed}")


def arrow_rows(batches: Iterable[Any], *, text: str, label: str) -> Iterator[Row]:
    """The rows of Arrow's tables or record batches, numbered from 1 through all of them."""
    number = 0
    for batch in batches:
        for found in zip(batch.column(text), batch.column(label), strict=True):
            number += 1
            try:
                row = Row(f"row {number}", *(value.as_py() for value in found))
            except UnicodeDecodeError:
                row = Row(f"row {number}", problem="not UTF-8")
            yield row


def _content(text: object) -> bytes:
    if text is None or (isinstance(text, str) and not text.strip()):
        raise ValueError("empty text")
    if not isinstance(text, str):
        raise ValueError(f"{str(text)[:40]} is no text")
    return _utf8(text)


def _label(label: object) -> str:
    if isinstance(label, float) and label.is_integer():  # whole numbers, once some are missing
        label = int(label)
    if label is None or label != label or (isinstance(label, str) and not label.strip()):
        raise ValueError("no label")
    if not isinstance(label, int | str):
        raise ValueError(f"{str(label)[:40]} is no label: it must be text or a whole number")
    return _utf8(str(label).strip()).decode()


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # what could not be decoded was kept as surrogates, which UTF-8 lacks
        raise ValueError("not UTF-8") from None


def _order(label: str) -> tuple[float, str]:
    return (int(label) if re.fullmatch(r"-?\d+", label) else math.inf, label)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many, in the order they came; which ones, the texts alone decide."""
    chosen = sorted(range(len(examples)), key=lambda at: _digest(examples[at].content))[:most]
    return [examples[at] for at in sorted(chosen)]
