"""Text classification on the user's own data: from rows of any source to examples of token ids."""

from __future__ import annotations

import copy
import logging
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

from spaces.tasks import SPLITS, Batch, Split, Task, TaskSpec, check_whole, majority_share, split_sizes
from spaces.tasks.sources.bad_rows import warn_or_refuse
from spaces.tasks.sources.splits import largest_classes, split_by_hash, subset_by_hash
from spaces.tasks.sources.tokens import DERIVED, Encoder, Ids, TokenSettings, pad_ids

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A row of a source: text and label as found there, or the problem that makes it unusable."""

    where: str  # place in the source, such as "line 7"
    text: object = None
    label: object = None
    problem: str | None = None


class Source(NamedTuple):
    """The rows of a file or data set, and its name for messages."""

    name: str
    rows: Iterable[Row]


class Example(NamedTuple):
    """A text and its class name."""

    text: str
    label: str


class LabelledTexts(Task):
    """Accuracy of text classification.

    A split without a source of its own gets a tenth of the distinct texts of train, of each class. The split of a text
    follows from its hash, so copies of a text are in the same split.

    Args:
        text: the column of texts.
        label: the column of labels.
        tokens: what a token is, see :class:`~spaces.tasks.sources.tokens.TokenSettings`; learned from train alone.
        vocabulary: number of tokens that are learned at most; null: a default.
        length: tokens of a text at most; longer texts are truncated, and their share is logged.
        classes: number of classes at most; the largest are kept, and the omitted ones are logged.
        train: training examples at most, a random subset if there are more.
        validation: validation examples at most, likewise.
        test: test examples at most, likewise.
    """

    varied = False  # whether the input settings are those of an architecture

    def __init__(
        self,
        *,
        text: str,
        label: str,
        tokens: str,
        vocabulary: int | None,
        length: int,
        classes: int,
        train: int,
        validation: int,
        test: int,
    ) -> None:
        check_whole(1, length=length)
        self.tokens = TokenSettings(tokens, vocabulary)
        check_whole(2, classes=classes)
        if text == label:
            raise ValueError(f"text={text!r}, label={label!r}: they must be two different columns")
        self.text, self.label, self.length, self.classes = text, label, length, classes
        self.limits = split_sizes(train=train, validation=validation, test=test)

    @abstractmethod
    def sources(self) -> Mapping[Split, Source]:
        """The source of train, and those of other splits that have their own.

        Raises:
            ValueError: a source cannot be read, or lacks a column.
        """

    @cached_property
    def rows(self) -> dict[Split, list[Example]]:
        """The examples of each split, in the order of their source."""
        found = {split: self._usable(source) for split, source in self.sources().items()}
        sizes = Counter(example.label for examples in found.values() for example in examples)
        kept = self._largest_classes(sizes)
        found = {split: [each for each in examples if each.label in kept] for split, examples in found.items()}
        held_out = [split for split in SPLITS if split not in found]
        splits = split_by_hash(found["train"], key=_text_of, stratify=_label_of, held_out=held_out)
        splits |= {split: examples for split, examples in found.items() if split != "train"}
        return {split: subset_by_hash(splits[split], self.limits[split], key=_text_of) for split in SPLITS}

    def _usable(self, source: Source) -> list[Example]:
        kept, problems = list[Example](), list[str]()
        for row in source.rows:
            try:
                if row.problem:
                    raise ValueError(row.problem)
                kept.append(Example(_text(row.text), _label(row.label)))
            except ValueError as error:
                problems.append(f"{row.where}: {error}")
        warn_or_refuse(problems, len(kept) + len(problems), where=source.name, what="rows")
        return kept

    def _largest_classes(self, sizes: Mapping[str, int]) -> set[str]:
        kept = set(largest_classes(sizes, self.classes))
        if omitted := [name for name in largest_classes(sizes, len(sizes)) if name not in kept]:
            rows = sum(sizes[name] for name in omitted)
            summary = f"{len(omitted)} of {len(sizes)} classes with {rows} rows, such as {omitted[0]!r}"
            log.warning("omitted: %s; classes=%d keeps the largest", summary, self.classes)
        return kept

    @cached_property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Labels in the order of their class numbers: integers by value, then others alphabetically."""
        return sorted({label for examples in self.rows.values() for _, label in examples}, key=_label_order)

    def with_input(
        self, *, tokens: str | None = None, vocabulary: int | None = None, length: int | None = None
    ) -> LabelledTexts:
        """The same texts and labels as other tokens; what is not given stays, and the vocabulary is that of tokens."""
        varied = copy.copy(self)
        shared = {"rows": self.rows, "class_names": self.class_names, "chance": self.chance}
        varied.__dict__ = {name: value for name, value in vars(self).items() if name not in DERIVED} | shared
        varied.varied = True
        varied.tokens = self.tokens.varied(tokens, vocabulary)
        if length is not None:
            check_whole(1, length=length)
            varied.length = length
        return varied

    def contents(self, split: Split) -> Sequence[Hashable]:
        """The whole texts."""
        return [text for text, _ in self.rows[split]]

    @cached_property
    def ids(self) -> dict[Split, list[Ids]]:
        """The token ids of each text."""
        found = {split: self.encoder.encode([text for text, _ in self.rows[split]]) for split in SPLITS}
        lengths = [len(ids) for texts in found.values() for ids in texts]
        if truncated := sum(length > self.length for length in lengths):
            share = f"{truncated} of {len(lengths)} texts ({truncated / len(lengths):.0%})"
            level = logging.INFO if self.varied else logging.WARNING
            log.log(level, "%s are longer than length=%d %s and are truncated", share, self.length, self.tokens.unit)
        return {split: [ids[: self.length] for ids in texts] for split, texts in found.items()}

    @cached_property
    def encoder(self) -> Encoder:
        """Learned from the training texts."""
        return self.tokens.encoder(text for text, _ in self.rows["train"])

    @cached_property
    def spec(self) -> TaskSpec:  # type: ignore[override]
        """The sequence length is that of the longest text, at most ``length``."""
        longest = max((len(ids) for texts in self.ids.values() for ids in texts), default=1)
        vocabulary = self.encoder.vocabulary
        return TaskSpec(length=longest, vocabulary=vocabulary, classes=len(self.class_names), per_token=False)

    @cached_property
    def chance(self) -> float:  # type: ignore[override]
        """The share of the majority class in validation."""
        return majority_share(label for _, label in self.rows["validation"])

    def examples(self, split: Split) -> Batch:
        """Token ids ``(texts, length)``, padded, and classes ``(texts,)``."""
        classes = {name: number for number, name in enumerate(self.class_names)}
        labels = torch.tensor([classes[label] for _, label in self.rows[split]], dtype=torch.int64)
        return pad_ids(self.ids[split], self.spec.length, labels)


def check_columns(columns: Iterable[str], *, source: str, text: str, label: str) -> None:
    """Raise ``ValueError``, listing the columns, unless both ``text`` and ``label`` are among them."""
    names = list(columns)
    listed = ", ".join(name[:40] for name in names) or "none"  # without a header these may be long texts
    listed = listed.encode(errors="backslashreplace").decode()
    for setting, name in (("text", text), ("label", label)):
        if name not in names:
            raise ValueError(f"{setting}={name!r}: {source} has no such column; there are {listed}")


def arrow_rows(batches: Iterable[Any], *, text: str, label: str) -> Iterator[Row]:
    """The rows of Arrow tables or record batches, numbered consecutively from 1."""
    number = 0
    for batch in batches:
        for found in zip(batch.column(text), batch.column(label), strict=True):
            number += 1
            try:
                row = Row(f"row {number}", *(value.as_py() for value in found))
            except UnicodeDecodeError:
                row = Row(f"row {number}", problem="not UTF-8")
            yield row


def _text(text: object) -> str:
    if text is None or (isinstance(text, str) and not text.strip()):
        raise ValueError("empty text")
    if not isinstance(text, str):
        raise ValueError(f"{str(text)[:40]} is not a text")
    return _checked(text)


def _label(label: object) -> str:
    if isinstance(label, float) and label.is_integer():  # a column of integers with missing values is read as floats
        label = int(label)
    if label is None or label != label or (isinstance(label, str) and not label.strip()):
        raise ValueError("no label")
    if not isinstance(label, int | str):
        raise ValueError(f"{str(label)[:40]} is not a label: it must be a text or an integer")
    return _checked(str(label).strip())


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # undecodable bytes were read as surrogates, which cannot be encoded
        raise ValueError("not UTF-8") from None
    return text


def _text_of(example: Example) -> str:
    return example.text


def _label_of(example: Example) -> str:
    return example.label


def _label_order(label: str) -> tuple[float, str]:
    return (int(label) if re.fullmatch(r"-?\d+", label) else math.inf, label)
