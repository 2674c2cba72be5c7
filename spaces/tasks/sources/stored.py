"""Encoded examples in files that are memory-mapped: processes share their pages, and they are encoded once.

The files are kept in the :mod:`.cache` folder, under a name that depends on the content of the data and on all settings
that change the examples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import Batch
from spaces.tasks.sources.cache import cache_folder, cache_limit, mark_used, new_folder, trim

log = logging.getLogger(__name__)
LARGE = 64 * 2**20  # bytes of a split's examples in memory from which on a task stores them
CHUNK = 1000  # examples that are encoded and written together
FORMAT = 2  # of the files; to be increased when it, or the encoding of any task, changes


class Chunk(NamedTuple):
    """Some consecutive examples, without padding."""

    tokens: NDArray[Any]  # (tokens,) ids of any unsigned type, or (tokens, features), of all of them one by one
    lengths: NDArray[Any]  # (examples,) tokens of each
    labels: NDArray[Any]  # (examples,) int64


class StoredExamples:
    """The examples of a split, of which batches are made when they are selected.

    Ids become int64 and frames float32.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        shape = (meta["tokens"], *meta["features"])
        self.tokens = np.memmap(folder / "tokens.bin", dtype=meta["dtype"], mode="r", shape=shape)
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")
        self.labels = torch.from_numpy(np.load(folder / "labels.npy"))
        self.length = int(np.diff(self._ends, prepend=0).max())  # that examples are padded to; may be increased

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.labels)

    @property
    def lengths(self) -> Tensor | None:
        """Tokens of each example, ``(examples,)``; None if none is padded."""
        lengths = torch.from_numpy(np.diff(self._ends, prepend=0))
        return None if (lengths == self.length).all() else lengths

    def select(self, indices: Tensor) -> Batch:
        """The examples at ``indices``, in that order, padded to ``length``, at first that of the longest of all."""
        rows = np.zeros((len(indices), self.length, *self.tokens.shape[1:]), dtype=self.tokens.dtype)
        padding = torch.ones(rows.shape[:2], dtype=torch.bool)
        for row, at in enumerate(indices.tolist()):
            tokens = self.tokens[self._ends[at - 1] if at else 0 : self._ends[at]]
            rows[row, : len(tokens)] = tokens
            padding[row, : len(tokens)] = False
        inputs = torch.from_numpy(rows.astype(np.int64 if rows.ndim == 2 else np.float32))
        return Batch(inputs, padding if padding.any() else None, self.labels[indices])


def cache_name(content: Iterable[Path | str], settings: object) -> str:
    """SHA-256 of the contents of files, of texts, and of settings (anything that JSON can express)."""
    name = hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())
    for each in content:
        if isinstance(each, str):
            name.update(hashlib.sha256(each.encode()).digest())
        else:
            with each.open("rb") as file:
                name.update(hashlib.file_digest(file, "sha256").digest())
    return name.hexdigest()


def stored_examples(name: str, chunks: Callable[[], Iterable[Chunk]]) -> StoredExamples:
    """The examples stored under ``name``; at first they are stored, unless another process does so meanwhile.

    Args:
        name: as of :func:`cache_name`.
        chunks: yields all examples; their tokens have the same type and features.
    """
    entry = cache_folder() / name
    if (found := _find(entry)) is not None:
        return found
    cache_limit()  # an invalid one is refused before the work
    folder = new_folder()
    try:
        _write(folder, chunks())
        written = StoredExamples(folder)  # mapped: it stays valid whatever happens to the folder
        with suppress(OSError):  # the entry is there already
            folder.rename(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trim(keep=name)
    log.info("stored encoded examples in %s", entry)
    return _find(entry) or written


def _find(entry: Path) -> StoredExamples | None:
    """The examples of an entry of the cache; None if there is none, or another process removes it."""
    try:
        mark_used(entry)
        return StoredExamples(entry)
    except FileNotFoundError:
        return None


def _write(folder: Path, chunks: Iterable[Chunk]) -> None:
    lengths, labels, total, meta = list[NDArray[Any]](), list[NDArray[Any]](), 0, dict[str, Any]()
    with (folder / "tokens.bin").open("wb") as file:  # written, not mapped, so that it takes no memory
        for chunk in chunks:
            assert len(chunk.tokens) == chunk.lengths.sum()
            file.write(np.ascontiguousarray(chunk.tokens).data)
            total += len(chunk.tokens)
            lengths.append(chunk.lengths)
            labels.append(chunk.labels)
            meta = {"dtype": str(chunk.tokens.dtype), "features": chunk.tokens.shape[1:]}
    np.save(folder / "ends.npy", np.concatenate(lengths).astype(np.int64).cumsum())
    np.save(folder / "labels.npy", np.concatenate(labels))
    (folder / "meta.json").write_text(json.dumps({**meta, "tokens": total}))
