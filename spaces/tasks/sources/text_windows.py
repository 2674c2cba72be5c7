"""Windows of text files: which files of a folder are texts, which windows of them are examples, and their bytes."""

from __future__ import annotations

import logging
import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import NamedTuple

from spaces.tasks import Split
from spaces.tasks.sources.splits import MIN_TO_SPLIT, digest, split_by_hash

log = logging.getLogger(__name__)
SUFFIXES = (".py", ".txt", ".md", ".rst")
PARTS: Mapping[Split, tuple[int, int]] = {"train": (0, 8), "validation": (8, 9), "test": (9, 10)}  # tenths
SKIPPED_DIRS = {"site-packages", "dist-packages", "node_modules", "__pycache__"}  # installed or generated files


class File(NamedTuple):
    """A text file; ``name`` is its path relative to the folder, with slashes on every platform."""

    name: str
    size: int  # bytes


class Part(NamedTuple):
    """The bytes of a file from ``start`` on and before ``stop``, all in the same split."""

    file: File
    start: int
    stop: int


class Window(NamedTuple):
    """Consecutive bytes of a file from ``start`` on, all before ``stop``; ``label`` is the index of its subfolder."""

    file: File
    start: int
    stop: int
    label: int


def choose_windows(
    folder: Path, groups: Sequence[Sequence[File]], split: Split, length: int, limit: int, *, end: int
) -> list[Window]:
    """At most ``limit`` windows of a split, equally many of each group, evenly spaced within it.

    Args:
        folder: where the files are, for messages.
        groups: the files of each label.
        split: which split of the files.
        length: bytes of a window; the last one of a file may be shorter.
        limit: windows at most.
        end: bytes at the end of a file in which no window starts.

    Raises:
        ValueError: there is too little text, or ``limit`` is below the number of groups.
    """
    if limit < len(groups):
        raise ValueError(f"{split}={limit}: with {len(groups)} classes it must be at least {len(groups)}")
    chosen = []
    for label, group in enumerate(groups):
        parts = _parts(group, split)
        ends = list(accumulate(math.ceil((part.stop - part.start - end) / length) for part in parts))
        kept = min(ends[-1], limit // len(groups))
        if not kept:
            size = sum(file.size for file in group)
            raise ValueError(f"folder={str(folder)!r}: {size} bytes of text are too few for three splits")
        for number in (index * ends[-1] // kept for index in range(kept)):
            at = bisect_right(ends, number)
            before = ends[at - 1] if at else 0
            part = parts[at]
            chosen.append(Window(part.file, part.start + (number - before) * length, part.stop, label))
    return chosen


def _parts(files: Sequence[File], split: Split) -> list[Part]:
    """What belongs to a split: whole files, by their names; of too few files a part of each.

    Parts are consecutive: examples from all over a file would be neighbours of those in the other splits.
    """
    if len(files) >= MIN_TO_SPLIT:
        own = sorted(split_by_hash(files, key=_name)[split], key=lambda file: digest(file.name))
        return [Part(file, 0, file.size) for file in own]
    first, last = PARTS[split]
    return [Part(file, first * file.size // 10, last * file.size // 10) for file in files]


def read_windows(folder: Path, windows: Sequence[Window], size: int, split: Split) -> list[tuple[int, bytes]]:
    """The label and at most ``size`` bytes from the start of each window; unreadable files are skipped with a warning.

    Raises:
        ValueError: no file can be read.
    """
    rows = list[tuple[int, bytes]]()
    for file, found in groupby(windows, key=lambda window: window.file):
        try:
            rows += _read(folder, file, list(found), size)
        except OSError as error:
            log.warning("skipped %s: %s", file.name, error)
    if not rows:
        raise ValueError(f"folder={str(folder)!r}: none of the {split} files can be read")
    return rows


def _read(folder: Path, file: File, windows: Sequence[Window], size: int) -> list[tuple[int, bytes]]:
    rows = []
    with (folder / file.name).open("rb") as source:
        if os.fstat(source.fileno()).st_size != file.size:
            raise OSError("its size has changed since the folder was listed")
        for window in windows:
            source.seek(window.start)
            rows.append((window.label, source.read(min(size, window.stop - window.start))))
    return rows


def _name(file: File) -> str:
    return file.name


def text_files(folder: Path, suffixes: tuple[str, ...], inside: str = "") -> Iterator[File]:
    """Files of at least two bytes whose names end in one of ``suffixes``; symbolic links to folders are ignored."""
    try:
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in SKIPPED_DIRS and not entry.name.startswith("."):
                        yield from text_files(folder, suffixes, f"{name}/")
                elif name.lower().endswith(suffixes) and entry.is_file() and (size := entry.stat().st_size) > 1:
                    yield File(name, size)
    except OSError as error:
        log.warning("skipped %s: %s", folder / inside, error)
