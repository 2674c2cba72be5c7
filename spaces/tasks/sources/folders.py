"""Files in folders of the user, one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath


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

    Folders whose names begin with ``_`` or a dot are no classes.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob(f"{inside}*/*")):
        name = path.parent.name
        if path.suffix.lower() in suffixes and path.name[0] != "." and name[0] not in "._":
            found.setdefault(name, []).append(f"{inside}{name}/{path.name}")
    return found


def class_of(file: str) -> str:
    """The class of a file: the name of its folder."""
    return PurePosixPath(file).parent.name
