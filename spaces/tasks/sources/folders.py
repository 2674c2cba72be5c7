"""Files in folders of the user, one folder per class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)


def existing_folder(folder: str | None, content: str) -> Path:
    """The folder as a path.

    Raises:
        ValueError: it is not given or does not exist; ``content`` says what it must contain.
    """
    if folder is None:
        raise ValueError(f"folder=None: name a folder that contains {content}")
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"folder={folder!r}: no such folder")
    return Path(folder).expanduser()


def class_files(folder: Path, suffixes: Sequence[str], *, inside: str = "") -> dict[str, list[str]]:
    """Files by class whose names end in one of ``suffixes``, as paths ``inside/class/file`` relative to ``folder``.

    Folders whose names begin with ``_`` or a dot are no classes. A warning counts the files by ending if there are
    several formats, as a class may be told by its format, or if some files are not read.
    """
    found: dict[str, list[str]] = {}
    formats, unread = Counter[str](), Counter[str]()
    for path in sorted(folder.glob(f"{inside}*/*")):
        name, suffix = path.parent.name, path.suffix.lower()
        if path.name[0] == "." or name[0] in "._":
            continue
        if suffix in suffixes:
            found.setdefault(name, []).append(f"{inside}{name}/{path.name}")
            formats[suffix] += 1
        elif path.is_file():
            unread[suffix or "without an ending"] += 1
    if len(formats) > 1 or unread:
        omitted = f"; not read, by their ending: {_counted(unread)}" if unread else ""
        log.warning("%s: %s files are read%s", folder / inside, _counted(formats) or "no", omitted)
    return found


def _counted(endings: Mapping[str, int]) -> str:
    return ", ".join(f"{endings[ending]} {ending}" for ending in sorted(endings))


def class_of(file: str) -> str:
    """The class of a file: the name of its folder."""
    return PurePosixPath(file).parent.name


def class_numbers(files: Iterable[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    """The positions in ``class_names`` of the classes of files, ``(files,)``."""
    return np.array([class_names.index(class_of(file)) for file in files])
