"""Readers of tables with a column of texts and one of labels: CSV, TSV, JSON, JSON lines and Parquet; also compressed.

In CSV a quoted field may contain separators and newlines (RFC 4180); in TSV quotes have no meaning, and no field
contains tabs or newlines (as its media type is defined). Both begin with a header. All but JSON and Parquet are read
row by row.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from spaces.tasks.sources.rows import Row, arrow_rows, check_columns
from spaces.tasks.sources.text_encoding import marked_encoding, recognise_encoding

FIELD_LIMIT = 2**31 - 1  # the default limit of Python's csv is too small for long documents
COMPRESSIONS: Mapping[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
READ_ERRORS = (OSError, EOFError, UnicodeError, csv.Error, zlib.error, lzma.LZMAError)


class Settings(NamedTuple):
    """What to read of a table, and how."""

    text: str  # the column of texts
    label: str  # the column of labels
    group: str | None = None  # the column of groups; None: there are no groups
    separator: str | None = None  # of CSV; None: recognised by the header
    encoding: str | None = None  # of all but Parquet; None: recognised

    @property
    def columns(self) -> list[str]:
        """Those of texts, of labels and, if there are any, of groups: the order of :class:`Row`."""
        return [self.text, self.label, *([] if self.group is None else [self.group])]

    def check(self, columns: Iterable[str], path: Path) -> None:
        """Raise ``ValueError`` unless the table has all needed columns."""
        check_columns(columns, source=path.name, text=self.text, label=self.label, group=self.group)


def table_format(path: Path) -> str | None:
    """The ending that tells the format, such as ``.csv`` for ``reviews.csv.gz``; None if it is not one of FORMATS."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def read_table(path: Path, settings: Settings) -> Iterator[Row]:
    """The rows of a table, whose format is that of :func:`table_format`.

    Raises:
        ValueError: the file cannot be read, or lacks a column.
    """
    found = table_format(path)
    assert found is not None
    try:
        yield from FORMATS[found](path, settings)
    except READ_ERRORS as error:
        raise ValueError(f"{path.name}: {error}") from error


def open_table(path: Path) -> BinaryIO:
    """The decompressed bytes of a file."""
    opened: BinaryIO = COMPRESSIONS.get(path.suffix.lower(), partial(open, mode="rb"))(path)
    return opened


class TabSeparated(csv.excel_tab):
    """TSV as its media type is defined: unlike in Python's dialect, quotes have no meaning."""

    quoting = csv.QUOTE_NONE


def read_separated(
    path: Path, settings: Settings, *, dialect: type[csv.Dialect], separators: Sequence[str]
) -> Iterator[Row]:
    """Rows of a file of separated fields.

    Args:
        path: the file.
        settings: its columns, separator and encoding.
        dialect: the rules of quoting.
        separators: those to choose from if the settings name none, the most likely first.
    """
    with open_table(path) as content:
        encoding = settings.encoding or recognise_encoding(content, path.name)
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        with _decoded(path, encoding, newline="") as file:
            candidates = [settings.separator] if settings.separator else separators
            separator, header = _header(file, dialect, candidates, set(settings.columns))
            settings.check(header, path)
            file.seek(0)
            lines = csv.reader(file, dialect, delimiter=separator, strict=True)
            next(lines)
            places = [header.index(column) for column in settings.columns]
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


def _header(
    file: io.TextIOWrapper, dialect: type[csv.Dialect], separators: Sequence[str], needed: set[str]
) -> tuple[str, list[str]]:
    """The separator by which the header has the needed columns, else the most columns; and the header."""
    headers = {}
    for separator in separators:
        file.seek(0)
        headers[separator] = next(csv.reader(file, dialect, delimiter=separator, strict=True), [])
    return max(headers.items(), key=lambda found: (needed <= set(found[1]), len(found[1])))


def _decoded(path: Path, encoding: str, newline: str) -> io.TextIOWrapper:
    """The characters of a file; bytes that cannot be decoded become surrogates, so that their row is known."""
    return io.TextIOWrapper(open_table(path), encoding=encoding, errors="surrogateescape", newline=newline)


def _decoded_json(path: Path, settings: Settings) -> io.TextIOWrapper:
    """JSON is UTF-8 (RFC 8259), unless a byte order mark or the settings tell otherwise."""
    with open_table(path) as content:
        encoding = settings.encoding or marked_encoding(content)
    return _decoded(path, encoding, newline="\n")


def read_json_lines(path: Path, settings: Settings) -> Iterator[Row]:
    """Rows of a file with one JSON object per line."""
    columns = dict[str, None]()
    with _decoded_json(path, settings) as file:
        for number, line in enumerate(file, start=1):
            where = f"line {number}"
            if not line.strip():
                continue
            try:
                yield _object_row(where, json.loads(line), settings, columns)
            except json.JSONDecodeError as error:
                yield Row(where, problem=f"not JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield Row(where, problem="nested too deeply")
    _check_objects(path, settings, columns)


def read_json(path: Path, settings: Settings) -> Iterator[Row]:
    """Rows of one JSON value: an array of objects, alone or as ``data`` of an object; or an object of columns.

    A column is an array, or an object of values by row name as pandas writes it. A file of JSON lines is read as such.
    """
    with _decoded_json(path, settings) as file:
        try:
            found = json.load(file)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data" and error.lineno > 1:
                yield from read_json_lines(path, settings)
                return
            raise ValueError(
                f"{path.name}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
            ) from error
        except RecursionError:
            raise ValueError(f"{path.name}: it is nested too deeply; it must be an array of objects") from None
    if isinstance(found, dict) and not set(settings.columns) <= found.keys():
        found = found["data"] if isinstance(found.get("data"), list) else found
    if isinstance(found, dict):
        settings.check(found, path)
        yield from _column_rows(path, {name: found[name] for name in settings.columns})
        return
    if not isinstance(found, list):
        raise ValueError(f"{path.name}: it must be an array of objects, or an object of columns")
    columns = dict[str, None]()
    for number, each in enumerate(found, start=1):
        yield _object_row(f"row {number}", each, settings, columns)
    _check_objects(path, settings, columns)


def _object_row(where: str, found: object, settings: Settings, columns: dict[str, None]) -> Row:
    if not isinstance(found, dict):
        return Row(where, problem="not a JSON object")
    columns |= dict.fromkeys(found)
    return Row(where, *map(found.get, settings.columns))


def _check_objects(path: Path, settings: Settings, columns: Mapping[str, None]) -> None:
    """Raise ``ValueError`` if a column is missing from all objects."""
    if columns:  # otherwise no row was an object, and each has its own problem
        settings.check(columns, path)


def _column_rows(path: Path, columns: Mapping[str, Any]) -> Iterator[Row]:
    arrays = list(columns.values())
    if all(isinstance(each, dict) for each in arrays) and len({tuple(each) for each in arrays}) == 1:
        arrays = [list(each.values()) for each in arrays]
    if not all(isinstance(each, list) for each in arrays) or len({len(each) for each in arrays}) > 1:
        raise ValueError(f"{path.name}: {', '.join(columns)} must be arrays of the same length, one value per row")
    for number, values in enumerate(zip(*arrays, strict=True), start=1):
        yield Row(f"row {number}", *values)


def read_parquet(path: Path, settings: Settings) -> Iterator[Row]:
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
    compressed = path.suffix.lower() in COMPRESSIONS
    try:
        with open_table(path) as source, parquet.ParquetFile(io.BytesIO(source.read()) if compressed else path) as file:
            settings.check(file.schema_arrow.names, path)
            yield from arrow_rows(file.iter_batches(columns=settings.columns), settings.columns)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path.name}: no Parquet that can be read: {error}") from error


FORMATS: Mapping[str, Callable[[Path, Settings], Iterator[Row]]] = {
    ".csv": partial(read_separated, dialect=csv.excel, separators=",;\t|"),
    ".tsv": partial(read_separated, dialect=TabSeparated, separators="\t"),
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}
