"""The checkpoint file of a trial: written as a whole or not at all; a damaged one counts as missing."""

from __future__ import annotations

import io
import logging
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from search.training.remote import RemoteFile
from spaces.architecture import Architecture, key

log = logging.getLogger(__name__)

EVERY_S = 2.0  # at least so many seconds of training are between two checkpoints
MAX_SHARE = 0.05  # of the time that writing checkpoints may take; it is far less for small networks


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file: readers see the old one or the new one, and a failure leaves the old one and no other file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def dump(state: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint. In memory first: PyTorch ends the process if its own writing of a file fails."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


class LocalFile:
    """A file on a disk of this machine, or on one that it shares; see :class:`~search.training.remote.RemoteFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def content(self) -> Path:
        """What ``torch.load`` reads."""
        return self._path

    def write(self, data: bytes) -> None:
        """Create or replace the file, as a whole or not at all."""
        write_atomically(self._path, data)

    def delete(self) -> None:
        """Delete the file, if it exists, and what workers that were killed while they wrote it have left."""
        for path in (self._path, *self._path.parent.glob(f".{self._path.name}.*")):
            path.unlink(missing_ok=True)


class Checkpoint:
    """The file of a trial, which all workers of a study see, and when it is due.

    Args:
        place: of the file.
        architecture: of the trial; the file of another one, left by a deleted study, counts as missing.
    """

    def __init__(self, place: Path | RemoteFile, architecture: Architecture) -> None:
        self._file = LocalFile(place) if isinstance(place, Path) else place
        self._architecture = key(architecture)
        self._due_at = time.monotonic() + EVERY_S

    def epochs(self) -> int:
        """The number of epochs that the training in the file has completed; 0 if there is none."""
        try:
            content = self.content()
            state = torch.load(content, weights_only=True, map_location="cpu", mmap=isinstance(content, Path))
            return int(state["epoch"]) if state["architecture"] == self._architecture else 0
        except FileNotFoundError:
            return 0
        except Exception as error:  # a damaged file raises nearly everything
            log.warning(
                "The checkpoint %s is damaged or out of reach, its trial is trained from the beginning: %s",
                self._file,
                error,
            )
            return 0

    def content(self) -> Path | io.BytesIO:
        """What ``torch.load`` reads."""
        return self._file.content()

    def is_due(self) -> bool:
        """Whether enough time has passed since the last one."""
        return time.monotonic() >= self._due_at

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file. If that fails, such as on a full disk, the previous one stays, and a line is logged."""
        start = time.monotonic()
        data = dump({**state, "architecture": self._architecture})
        try:
            self._file.write(data)
        except Exception as error:  # of a disk OSError, of a server nearly everything
            log.warning("A checkpoint cannot be written, the trial goes on without it: %s", error)
        now = time.monotonic()
        self._due_at = now + max(EVERY_S, (now - start) / MAX_SHARE)

    def discard(self) -> None:
        """Delete the file, and what workers that were killed while they wrote it have left."""
        try:
            self._file.delete()
        except Exception as error:
            log.warning("The checkpoint %s cannot be deleted: %s", self._file, error)
