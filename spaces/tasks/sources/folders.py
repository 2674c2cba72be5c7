"""Data in the user's own folders: which classes there are, how files are dealt out to splits, what is unusable."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from spaces.tasks import Split, check_whole
from spaces.tasks.sources.bad_rows import warn_or_refuse

T = TypeVar("T")


def existing(folder: str | None, holds: str) -> Path:
    """The folder, which ``holds`` something; raise ``ValueError`` if it is not named or not there."""
    if folder is None:
        raise ValueError(f"folder=None: name a folder that holds {holds}")
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"folder={folder!r}: no such folder")
    return Path(folder).expanduser()


def class_files(folder: Path, suffixes: Sequence[str], *, inside: str = "") -> dict[str, list[str]]:
    """Files by class, each the path ``inside/class/file`` from ``folder``, whose name ends in one of ``suffixes``.

    Folders whose names begin with ``_`` or a dot hold no class.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob(f"{inside}*/*")):
        name = path.parent.name
        if path.suffix.lower() in suffixes and path.name[0] != "." and name[0] not in "._":
            found.setdefault(name, []).append(f"{inside}{name}/{path.name}")
    return found


def class_of(file: str) -> str:
    """The name of the folder that a file lies in."""
    return PurePosixPath(file).parent.name


def largest(files: Mapping[str, Sequence[str]], classes: int) -> tuple[str, ...]:
    """The names, sorted, of at most so many classes: those with the most files."""
    sizes = Counter({name: len(found) for name, found in files.items()})
    return tuple(sorted(name for name, _ in sizes.most_common(classes)))


def split_by_hash(items: Iterable[T], *, name: Callable[[T], str] = str) -> dict[Split, list[T]]:
    """About 8 to 1 to 1 of them, and at least one to judge by, in an order that only their names decide."""
    order = sorted(items, key=lambda item: digest(name(item)))
    tenth = max(1, round(len(order) / 10))
    return {"validation": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}


def evenly(
    files: Iterable[str], most: int, split: Split, classes: int, *, label: Callable[[str], object] = class_of
) -> list[str]:
    """At most ``most`` files, as many of each class as of the others, in an order that only their names decide."""
    check_whole(classes, **{split: most})
    by_class: dict[object, list[str]] = {}
    for file in sorted(files, key=digest):
        by_class.setdefault(label(file), []).append(file)
    return sorted(file for found in by_class.values() for file in found[: most // classes])


def usable(
    folder: Path, split: Split, files: Sequence[str], read: Callable[[str], T], refusals: tuple[type[Exception], ...]
) -> tuple[list[str], list[T]]:
    """The files that ``read`` takes, and what it makes of them; the others are named, counted and left out.

    Args:
        folder: where they lie, for messages.
        split: whose files they are.
        files: as ``read`` takes them.
        read: raises one of ``refusals`` where a file is unusable.
        refusals: what it raises.

    Raises:
        ValueError: there are none, or too many of them are unusable.
    """
    if not files:
        raise ValueError(f"folder={str(folder)!r}: no {split} files")
    kept, contents, problems = list[str](), list[T](), list[str]()
    for file in files:
        try:
            contents.append(read(file))
            kept.append(file)
        except refusals as error:
            problems.append(f"{file}: {str(error) or 'it ends too early'}")
    warn_or_refuse(problems, len(files), where=f"folder={str(folder)!r}", what=f"{split} files")
    return kept, contents


def digest(name: str) -> bytes:
    """What puts names in an order that has nothing to do with what they say."""
    return hashlib.sha256(name.encode()).digest()
