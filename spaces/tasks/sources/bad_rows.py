"""Unusable rows or files in the user's data: a few are skipped with a warning, many are an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from spaces.tasks import Split

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_BAD_SHARE = 0.1


def warn_or_refuse(problems: Sequence[str], total: int, *, where: str, what: str) -> None:
    """Log a warning with the number of unusable rows and the first problem.

    Args:
        problems: one per unusable row, beginning with its place.
        total: number of rows, usable and unusable.
        where: file or folder, for the message.
        what: what a row is, in the plural, such as "train files".

    Raises:
        ValueError: more than ``MAX_BAD_SHARE`` of the rows are unusable.
    """
    if not problems:
        return
    summary = f"{len(problems)} of {total} {what} are unusable, such as {problems[0]}"
    if len(problems) > MAX_BAD_SHARE * total:
        raise ValueError(f"{where}: {summary}")
    log.warning("%s: skipped: %s", where, summary)


def read_usable(
    folder: Path, split: Split, files: Sequence[str], read: Callable[[str], T], errors: tuple[type[Exception], ...]
) -> tuple[list[str], list[T]]:
    """The files that can be read, and their contents; arguments and errors as of :func:`iterate_usable`."""
    usable = list(iterate_usable(folder, split, files, read, errors))
    return [file for file, _ in usable], [content for _, content in usable]


def iterate_usable(
    folder: Path, split: Split, files: Sequence[str], read: Callable[[str], T], errors: tuple[type[Exception], ...]
) -> Iterator[tuple[str, T]]:
    """Each file that can be read, and its content; see :func:`warn_or_refuse`, called at the end, for the others.

    Args:
        folder: where the files are, for messages.
        split: their split, for messages.
        files: arguments of ``read``.
        read: reads one file and raises one of ``errors`` if it is unusable.
        errors: the exceptions of ``read``.

    Raises:
        ValueError: there are no files, or too many are unusable.
    """
    where = f"folder={str(folder)!r}"
    if not files:
        raise ValueError(f"{where}: no {split} files")
    problems = list[str]()
    for file in files:
        try:
            content = read(file)
        except errors as error:
            problems.append(f"{file}: {str(error) or 'it ends too early'}")
        else:
            yield file, content
    warn_or_refuse(problems, len(files), where=where, what=f"{split} files")
