"""Text classification on a table of the user's: CSV, TSV, JSON, JSON lines or Parquet; see :mod:`.sources.tables`."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from spaces.tasks import Split
from spaces.tasks.sources.labelled_texts import LabelledTexts
from spaces.tasks.sources.rows import Source
from spaces.tasks.sources.tables import COMPRESSIONS, FORMATS, Settings, read_table, table_format

SEPARATED = {".csv", ".tsv"}  # the formats whose columns are separated by a character


class Table(LabelledTexts):
    """Accuracy of text classification.

    Files are read at first use. Problems are reported with their line number, or row number for Parquet.

    Args:
        file: ends in .csv, .tsv, .json, .jsonl or .parquet, or in .csv.gz and so on (.gz, .bz2, .xz).
        text: the column of texts.
        label: the column of labels: texts or integers; rows without one are left out and counted.
        group: the column of users, documents or the like whose rows must be in the same split; null: there is none.
        validation_file: a table for validation; null: a tenth of ``file``.
        test_file: a table for testing; null: another tenth of ``file``.
        separator: of the columns of .csv and .tsv, one character; null: comma, semicolon, tab or bar, by the header.
        encoding: of all but .parquet, by its name in Python, such as gb18030; null: that of the byte order mark, else
            UTF-8, else, for .csv and .tsv, Latin-1 with a warning.
        tokens: see :class:`~spaces.tasks.sources.tokens.TokenSettings`.
        vocabulary: number of tokens that are learned from train at most, 8192 if null; or share of a file's tokens.
        lowercase: whether texts are converted to lower case before tokens are learned; null: true.
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
        group: str | None = None,
        validation_file: str | None = None,
        test_file: str | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        tokens: str = "bytes",
        vocabulary: float | None = None,
        lowercase: bool | None = None,
        length: int = 512,
        classes: int = 20,
        train: int = 20_000,
        validation: int = 2000,
        test: int = 5000,
    ) -> None:
        super().__init__(
            text=text,
            label=label,
            group=group,
            tokens=tokens,
            vocabulary=vocabulary,
            lowercase=lowercase,
            length=length,
            classes=classes,
            train=train,
            validation=validation,
            test=test,
        )
        accepted = f"{', '.join(FORMATS)}, with or without {', '.join(COMPRESSIONS)} after it"
        if file is None:
            raise ValueError(f"file=None: name a table that ends in {accepted}")
        files: dict[Split, str | None] = {"train": file, "validation": validation_file, "test": test_file}
        self.files = {split: Path(path).expanduser() for split, path in files.items() if path is not None}
        for split, path in self.files.items():
            setting = f"{'' if split == 'train' else f'{split}_'}file={str(path)!r}"
            if table_format(path) is None:
                raise ValueError(f"{setting}: it must end in {accepted}")
            if not path.is_file():
                raise ValueError(f"{setting}: no such file")
        formats = {table_format(path) for path in self.files.values()}
        self.settings = Settings(
            text, label, group, check_separator(separator, formats), check_encoding(encoding, formats)
        )

    def sources(self) -> Mapping[Split, Source]:
        """The files of the splits."""
        return {split: Source(path.name, read_table(path, self.settings)) for split, path in self.files.items()}


def check_separator(separator: str | None, formats: Set[str | None]) -> str | None:
    r"""The separator, in which a backslash and t, as typed in a shell, are a tab.

    Raises:
        ValueError: it cannot separate columns, or no file has one.
    """
    if separator is None:
        return None
    character = separator.replace(r"\t", "\t")
    if len(character) != 1 or character in '"\r\n':
        raise ValueError(f"separator={separator!r}: it must be one character, such as ';' or '\\t'")
    if not formats & SEPARATED:
        raise ValueError(f"separator={separator!r}: only {' and '.join(sorted(SEPARATED))} files have one; write null")
    return character


def check_encoding(encoding: str | None, formats: Set[str | None]) -> str | None:
    """The encoding.

    Raises:
        ValueError: Python does not know it, or all files are binary.
    """
    if encoding is None:
        return None
    try:
        "".encode(encoding)
    except LookupError as error:
        raise ValueError(f"encoding={encoding!r}: {error}; name one of Python's, such as latin-1 or utf-16") from error
    if formats == {".parquet"}:
        raise ValueError(f"encoding={encoding!r}: .parquet has no encoding; write null")
    return encoding
