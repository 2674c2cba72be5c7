"""Your own texts with labels, from a table: CSV, TSV, lines of JSON, or Parquet; read as UTF-8.

In CSV a quoted field may hold commas and line ends (RFC 4180); in TSV a quote is a character like any other, and no
field holds tabs or line ends (the media type's own definition). Both begin with a line of column names.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from spaces.tasks import Split
from spaces.tasks.sources.labelled_texts import LabelledTexts, Row, Source, arrow_rows, check_columns

LONGEST_FIELD = 2**31 - 1  # Python's own limit is below the length of long documents


class Table(LabelledTexts):
    """Fraction of texts whose label is told.

    Files are read at first use. What is wrong in them is told with the number of its line, or row of Parquet.

    Args:
        file: ends in .csv, .tsv, .jsonl or .parquet.
        text: name of the column of texts.
        label: name of the column of labels: words or whole numbers.
        validation_file: null: a tenth of ``file``.
        test_file: null: another tenth of ``file``.
        length: bytes at most; longer texts are cut, and their share is told.
        classes: at most; those with the most texts are kept, and what is left out is told.
        train: texts to learn from at most.
        validation: texts that the search judges by at most.
        test: texts that the front is reported on at most.
    """

    def __init__(
        self,
        *,
        file: str | None = None,
        text: str = "text",
        label: str = "label",
        validation_file: str | None = None,
        test_file: str | None = None,
        length: int = 512,
        classes: int = 20,
        train: int = 2000,
        validation: int = 500,
        test: int = 1000,
    ) -> None:
        super().__init__(
            text=text, label=label, length=length, classes=classes, train=train, validation=validation, test=test
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
        """A file each."""
        return {split: Source(path.name, self._read(path)) for split, path in self.files.items()}

    def _read(self, path: Path) -> Iterator[Row]:
        try:
            yield from READERS[path.suffix.lower()](path, self.text, self.label)
        except (OSError, csv.Error) as error:
            raise ValueError(f"{path.name}: {error}") from error


class Tabs(csv.excel_tab):
    """What TSV is by its own definition; Python's dialect gives quotes a meaning."""

    quoting = csv.QUOTE_NONE


def read_separated(path: Path, text: str, label: str, *, dialect: type[csv.Dialect]) -> Iterator[Row]:
    """Rows of a file whose fields stand between commas or tabs.

    Raises:
        ValueError: it lacks a column.
    """
    limit = csv.field_size_limit(LONGEST_FIELD)
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
                    yield Row(where, problem=f"{len(fields)} fields, where the first line has {len(header)}")
    finally:
        csv.field_size_limit(limit)


def read_json_lines(path: Path, text: str, label: str) -> Iterator[Row]:
    """Rows of a file that holds a JSON object a line.

    Raises:
        ValueError: no object has a column.
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
        ValueError: it lacks a column, is no Parquet, or there is nothing to read it with.
    """
    try:
        import pyarrow  # slow to import, and needed by this format alone
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path.name}: Parquet is read by a package that is not there: pip install pyarrow") from error
    try:
        with parquet.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, source=path.name, text=text, label=label)
            yield from arrow_rows(file.iter_batches(columns=[text, label]), text=text, label=label)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path.name}: {error}") from error


READERS: Mapping[str, Callable[[Path, str, str], Iterator[Row]]] = {
    ".csv": partial(read_separated, dialect=csv.excel),
    ".tsv": partial(read_separated, dialect=Tabs),
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}
