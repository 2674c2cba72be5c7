"""Text classification on a table of the user's: CSV, TSV, JSON lines or Parquet, in UTF-8.

In CSV a quoted field may contain commas and newlines (RFC 4180); in TSV quotes have no meaning, and no field contains
tabs or newlines (as its media type is defined). Both begin with a header.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from spaces.tasks import Split
from spaces.tasks.sources.labelled_texts import LabelledTexts, Row, Source, arrow_rows, check_columns

FIELD_LIMIT = 2**31 - 1  # the default limit of Python's csv is too small for long documents


class Table(LabelledTexts):
    """Accuracy of text classification.

    Files are read at first use. Problems are reported with their line number, or row number for Parquet.

    Args:
        file: ends in .csv, .tsv, .jsonl or .parquet.
        text: the column of texts.
        label: the column of labels: texts or integers.
        validation_file: a table for validation; null: a tenth of ``file``.
        test_file: a table for testing; null: another tenth of ``file``.
        tokens: ``bytes``, ``characters``, ``words``, ``bpe``, ``wordpiece``, ``unigram``, or a file tokenizer.json.
        vocabulary: number of tokens that are learned from train at most; null: 8192.
        length: tokens of a text at most; longer texts are truncated, and their share is logged.
        classes: number of classes at most; the largest are kept, and the omitted ones are logged.
        train: training examples at most.
        validation: validation examples at most.
        test: test examples at most.
    """

    def __init__(
        self,
        *,
        file: str | None = None,
        text: str = "text",
        label: str = "label",
        validation_file: str | None = None,
        test_file: str | None = None,
        tokens: str = "bytes",
        vocabulary: int | None = None,
        length: int = 512,
        classes: int = 20,
        train: int = 2000,
        validation: int = 500,
        test: int = 1000,
    ) -> None:
        super().__init__(
            text=text,
            label=label,
            tokens=tokens,
            vocabulary=vocabulary,
            length=length,
            classes=classes,
            train=train,
            validation=validation,
            test=test,
        )
        if file is None:
            raise ValueError(f"file=None: name a table that ends in {', '.join(READERS)}")
        files: dict[Split, str | None] = {"train": file, "validation": validation_file, "test": test_file}
        self.files = {split: Path(path).expanduser() for split, path in files.items() if path is not None}
        for split, path in self.files.items():
            setting = f"{'' if split == 'train' else f'{split}_'}file={str(path)!r}"
            if path.suffix.lower() not in READERS:
                raise ValueError(f"{setting}: it must end in {', '.join(READERS)}")
            if not path.is_file():
                raise ValueError(f"{setting}: no such file")

    def sources(self) -> Mapping[Split, Source]:
        """The files of the splits."""
        return {split: Source(path.name, self._read(path)) for split, path in self.files.items()}

    def _read(self, path: Path) -> Iterator[Row]:
        try:
            yield from READERS[path.suffix.lower()](path, self.text, self.label)
        except (OSError, csv.Error) as error:
            raise ValueError(f"{path.name}: {error}") from error


class TabSeparated(csv.excel_tab):
    """TSV as its media type is defined: unlike in Python's dialect, quotes have no meaning."""

    quoting = csv.QUOTE_NONE


def read_separated(path: Path, text: str, label: str, *, dialect: type[csv.Dialect]) -> Iterator[Row]:
    """Rows of a file of comma- or tab-separated fields.

    Raises:
        ValueError: a column is missing.
    """
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, dialect, strict=True)
            header = next(lines, [])
            check_columns(header, source=path.name, text=text, label=label)
            places = header.index(text), header.index(label)
            while True:
                where = f"line {lines.line_num + 1}"
                try:
                    fields = next(lines)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Row(where, problem=str(error))
                    continue
                if len(fields) == len(header):
                    yield Row(where, *(fields[place] for place in places))
                elif fields:
                    yield Row(where, problem=f"{len(fields)} fields, but the header has {len(header)}")
    finally:
        csv.field_size_limit(limit)


def read_json_lines(path: Path, text: str, label: str) -> Iterator[Row]:
    """Rows of a file with one JSON object per line.

    Raises:
        ValueError: a column is missing from all objects.
    """
    rows, columns = list[Row](), dict[str, None]()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"line {number}"
            try:
                found = json.loads(line) if line.strip() else None
            except json.JSONDecodeError as error:
                rows.append(Row(where, problem=f"not JSON: {error.msg} at column {error.colno}"))
            except UnicodeDecodeError:
                rows.append(Row(where, problem="not UTF-8"))
            else:
                if isinstance(found, dict):
                    columns |= dict.fromkeys(found)
                    rows.append(Row(where, found.get(text), found.get(label)))
                elif line.strip():
                    rows.append(Row(where, problem="not a JSON object"))
    if columns:
        check_columns(columns, source=path.name, text=text, label=label)
    yield from rows


def read_parquet(path: Path, text: str, label: str) -> Iterator[Row]:
    """Rows of a Parquet file.

    Raises:
        ValueError: a column is missing, the file is no Parquet file, or pyarrow is not installed.
    """
    try:
        import pyarrow  # slow to import, and needed by this format only
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{path.name}: reading Parquet needs pyarrow, which is not installed: pip install pyarrow"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, source=path.name, text=text, label=label)
            yield from arrow_rows(file.iter_batches(columns=[text, label]), text=text, label=label)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path.name}: {error}") from error


READERS: Mapping[str, Callable[[Path, str, str], Iterator[Row]]] = {
    ".csv": partial(read_separated, dialect=csv.excel),
    ".tsv": partial(read_separated, dialect=TabSeparated),
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}
