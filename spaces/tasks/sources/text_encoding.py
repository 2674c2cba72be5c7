"""Recognising the encoding of a text file: by its byte order mark, or by whether its lines are UTF-8."""

from __future__ import annotations

import codecs
import logging
from typing import BinaryIO

log = logging.getLogger(__name__)
FALLBACK = "cp1252"  # Latin-1 as Windows extends it; bytes alone hardly tell it from other one-byte encodings
BYTE_ORDER_MARKS = {  # the mark of UTF-32 begins with that of UTF-16, so it comes first
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def marked_encoding(file: BinaryIO) -> str:
    """The encoding of a file's byte order mark, UTF-8 if it has none."""
    head = file.read(max(map(len, BYTE_ORDER_MARKS)))
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")


def recognise_encoding(file: BinaryIO, name: str) -> str:
    """The encoding of a file's byte order mark; else UTF-8, or ``FALLBACK`` with a warning.

    The latter if fewer of the lines with other than ASCII characters are UTF-8 than are not. A few such lines in a file
    of UTF-8 are for the caller to handle.

    Args:
        file: opened at its beginning; it is read to its end.
        name: of the file, for the warning.
    """
    marked = marked_encoding(file)
    if marked != "utf-8":
        return marked
    file.seek(0)
    valid = invalid = 0
    for line in file:
        if not line.isascii():
            try:
                line.decode()
                valid += 1
            except UnicodeDecodeError:
                invalid += 1
    if invalid <= valid:
        return "utf-8"
    found = f"{invalid} of {invalid + valid} lines with other than ASCII characters are not UTF-8"
    log.warning(
        "%s: %s; the file is read as Latin-1 (%s); encoding=NAME reads another, such as gb18030", name, found, FALLBACK
    )
    return FALLBACK
