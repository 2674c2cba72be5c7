"""Files in a bucket or on another host, by fsspec URLs such as ``s3://bucket/folder/7.pt``."""

from __future__ import annotations

import io
from pathlib import Path

import fsspec

from search.config import hide_passwords
from spaces.dimensions import ConfigError

LOCAL = "paretoformer-checkpoints"  # folder of weights where checkpoints are elsewhere


class RemoteFile:
    """A file at an fsspec URL; object stores write it as a whole or not at all."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._system, self._path = fsspec.core.url_to_fs(url)

    def __str__(self) -> str:
        return hide_passwords(self._url)

    def content(self) -> io.BytesIO:
        """What ``torch.load`` reads.

        Raises:
            FileNotFoundError: there is no file.
        """
        return io.BytesIO(self._system.cat_file(self._path))

    def write(self, data: bytes) -> None:
        """Create or replace the file."""
        self._system.makedirs(self._system._parent(self._path), exist_ok=True)
        self._system.pipe_file(self._path, data)

    def delete(self) -> None:
        """Delete the file, if it exists."""
        if self._system.exists(self._path):
            self._system.rm_file(self._path)


def folders(checkpoints: str) -> tuple[Path, str | None]:
    """The folder of weights on this machine, and the URL of that of the checkpoints, None if it is the same.

    Args:
        checkpoints: the setting of that name, a path or a URL.

    Raises:
        ConfigError: the URL's protocol is unknown or needs a package, or its server does not answer.
    """
    if "://" not in checkpoints:
        return Path(checkpoints), None
    _check(checkpoints)
    return Path(LOCAL), checkpoints.rstrip("/")


def _check(url: str) -> None:
    where, protocol = f"checkpoints={hide_passwords(url)}", url.partition("://")[0]
    if protocol not in fsspec.available_protocols():
        raise ConfigError(
            f"{where}: unknown protocol {protocol!r}; write the path of a folder, or such as s3://BUCKET/DIR"
        )
    try:
        system, path = fsspec.core.url_to_fs(url)
        system.exists(path)
    except ImportError as error:
        raise ConfigError(f"{where}: {error}; for s3:// pip install 'paretoformer[s3]'") from None
    except Exception as error:  # of many kinds
        raise ConfigError(f"{where}: it cannot be reached: {hide_passwords(str(error))}") from None
