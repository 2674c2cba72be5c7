"""The cache folder of encoded data, of limited size: the least recently used entries are removed first.

It is ``$PARETOFORMER_CACHE``, else ``paretoformer`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Its entries have at most
``$PARETOFORMER_CACHE_GB`` gigabytes, 10 by default. They may be deleted at any time: on POSIX systems, files that
processes have mapped stay valid. An entry is a folder, named by a SHA-256; other files in the cache folder are left
alone.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

DEFAULT_GB = 10.0
TEMPORARY = "temporary-"  # prefix of folders that are being written or removed
ABANDONED_S = 86_400.0  # age of those whose process must have been killed


def cache_folder() -> Path:
    """Where entries are; see the module's docstring."""
    if given := os.environ.get("PARETOFORMER_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "paretoformer"


def cache_limit() -> float:
    """The size in bytes that the entries may have together.

    Raises:
        ValueError: the environment variable is no number from 0.
    """
    given = os.environ.get("PARETOFORMER_CACHE_GB") or DEFAULT_GB
    with suppress(ValueError):
        if (gigabytes := float(given)) >= 0:
            return gigabytes * 1e9
    raise ValueError(f"PARETOFORMER_CACHE_GB={given!r}: it must be a number of gigabytes from 0")


def new_folder() -> Path:
    """An empty folder in the cache folder, to be filled and then renamed."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=root, prefix=TEMPORARY))


def mark_used(entry: Path) -> None:
    """Record that an entry is used now; ``FileNotFoundError`` if there is none."""
    with suppress(PermissionError):  # another user's
        os.utime(entry)


def trim(*, keep: str) -> None:
    """Remove the least recently used entries until the others fit the limit; never the entry ``keep``.

    Several processes may do so at the same time. An entry is renamed before its files are removed, so that others find
    either all of its files or none.
    """
    root, limit, entries = cache_folder(), cache_limit(), list[tuple[float, int, Path]]()
    for path in root.iterdir():
        with suppress(OSError):  # removed by another process meanwhile, or no folder
            used = path.stat().st_mtime
            if path.name.startswith(TEMPORARY) and time.time() - used > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
            elif re.fullmatch("[0-9a-f]{64}", path.name):
                entries.append((used, sum(file.stat().st_size for file in path.iterdir()), path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        if path.name != keep:
            _remove(path)
            total -= size


def _remove(entry: Path) -> None:
    folder = new_folder()
    with suppress(OSError):
        entry.rename(folder / entry.name)
    shutil.rmtree(folder, ignore_errors=True)
