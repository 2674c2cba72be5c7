"""Rows of any source of labelled texts, as found there; what makes them unusable; and the examples of usable ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a source: text, label and group as found there, or the problem that makes it unusable."""

    where: str  # place in the source, such as "line 7"
    text: object = None
    label: object = None
    group: object = None
    problem: str | None = None


class Source(NamedTuple):
    """The rows of a file or data set, and its name for messages."""

    name: str
    rows: Iterable[Row]


class Example(NamedTuple):
    """A text, its class name and its group if it has one."""

    text: str
    label: str
    group: str | None = None

    @property
    def key(self) -> str:
        """What determines its split."""
        return self.group or self.text


def check_columns(columns: Iterable[str], *, source: str, text: str, label: str, group: str | None = None) -> None:
    """Raise ``ValueError``, listing the columns, unless ``text``, ``label`` and ``group`` if given are among them."""
    names = list(columns)
    listed = ", ".join(name[:40] for name in names) or "none"  # without a header these may be long texts
    escaped = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in listed)
    listed = "".join(escaped)  # of a file that is no text
    for setting, name in (("text", text), ("label", label), ("group", group)):
        if name is not None and name not in names:
            raise ValueError(f"{setting}={name!r}: {source} has no such column; there are {listed}")


def arrow_rows(batches: Iterable[Any], columns: Sequence[str]) -> Iterator[Row]:
    """The rows of Arrow tables or record batches, numbered consecutively from 1.

    Args:
        batches: the tables.
        columns: those of texts, of labels and, if there are any, of groups.
    """
    number = 0
    for batch in batches:
        for found in zip(*(batch.column(name) for name in columns), strict=True):
            number += 1
            try:
                row = Row(f"row {number}", *(value.as_py() for value in found))
            except UnicodeDecodeError:
                row = Row(f"row {number}", problem="not UTF-8")
            yield row


def text_of(text: object) -> str:
    """The text of a row; raises ``ValueError`` with the problem if it is unusable."""
    if text is None or (isinstance(text, str) and not text.strip()):
        raise ValueError("empty text")
    if not isinstance(text, str):
        raise ValueError(f"{str(text)[:40]} is not a text")
    return checked(text)


def is_missing(value: object) -> bool:
    """Whether it is None, NaN or an empty text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def label_of(label: object) -> str:
    """The class name of a row; raises ``ValueError`` with the problem if it is unusable."""
    if isinstance(label, float) and label.is_integer():  # a column of integers with missing values is read as floats
        label = int(label)
    if not isinstance(label, int | str):
        raise ValueError(f"{str(label)[:40]} is not a label: it must be a text or an integer")
    return checked(str(label).strip())


def checked(text: str) -> str:
    """The text; raises ``ValueError`` if some of its bytes could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:  # undecodable bytes were read as surrogates, which cannot be encoded
        raise ValueError("not UTF-8") from None
    return text


def label_of_group(examples: Iterable[Example]) -> Callable[[Example], str]:
    """Maps an example to the most frequent label of its group, of equally frequent ones the first."""
    counts: dict[str, Counter[str]] = {}
    for example in examples:
        counts.setdefault(example.key, Counter())[example.label] += 1
    majority = {name: max(count, key=count.__getitem__) for name, count in counts.items()}
    return lambda example: majority[example.key]
