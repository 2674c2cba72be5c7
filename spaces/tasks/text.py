"""Real text, as bytes, from a folder of files: which subfolder it comes from, or which byte comes next.

Files, not windows, are dealt out to the splits, so that no file is both learned from and judged by.
"""

from __future__ import annotations

import logging
import math
import os
import sysconfig
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole
from spaces.tasks.sources.folders import split_by_hash

log = logging.getLogger(__name__)

LEAST_FILES = 3  # one a split
NOT_THE_AUTHORS = {"site-packages", "dist-packages", "node_modules", "__pycache__"}  # installed or made by machines


class File(NamedTuple):
    """A text file; ``name`` is relative to the folder, with slashes on every system."""

    name: str
    size: int  # bytes


class Window(NamedTuple):
    """A stretch of at most ``length`` bytes; ``label`` is the index of its subfolder."""

    file: File
    start: int
    label: int


class Text(Task):
    """Accuracy of the subfolder, or bits per byte of the next byte.

    File names and sizes are read at construction, contents at first use. ``skipped`` then counts the files that could
    not be read.

    Args:
        folder: where to look, at any depth; null means the Python standard library's own sources. Hidden folders and
            those of installed packages are left out.
        predict: ``label``, the subfolder of ``folder`` that a window comes from, or ``next_byte``.
        length: bytes in a window; a file's last one may be shorter and is padded.
        generate: with next_byte, bytes to write one by one when a network is timed, at the end of a window whose other
            bytes are read before; 0 times one pass over the window instead.
        classes: with ``label``, most subfolders to tell apart; the largest by bytes are kept.
        suffixes: how the names of text files end.
        train: most windows to learn from, spread evenly over all there are; with labels, as many a subfolder.
        validation: the same for the windows that the search judges by.
        test: the same for the windows that the front is reported on.
    """

    batch_size = 16

    def __init__(
        self,
        *,
        folder: str | None = None,
        predict: Literal["label", "next_byte"] = "label",
        length: int = 512,
        generate: int = 0,
        classes: int = 8,
        suffixes: Sequence[str] = (".py", ".txt", ".md", ".rst"),
        train: int = 800,
        validation: int = 160,
        test: int = 320,
    ) -> None:
        check_whole(2, length=length, classes=classes)
        check_whole(1, train=train, validation=validation, test=test)
        if predict not in ("label", "next_byte"):
            raise ValueError(f"predict={predict!r}: it must be label or next_byte")
        if isinstance(suffixes, str) or not suffixes or not all(str(suffix).startswith(".") for suffix in suffixes):
            raise ValueError(f"suffixes={suffixes!r}: it must be a list of endings such as .txt")
        check_whole(0, generate=generate)
        if generate and predict != "next_byte":
            raise ValueError(f"generate={generate}: what is written are next bytes; it needs predict=next_byte")
        if generate >= length:
            raise ValueError(f"generate={generate}: with length={length} it must be 0..{length - 1}")
        self.target, self.generate, self.skipped = predict, generate, 0
        self.folder = Path(sysconfig.get_path("stdlib") if folder is None else folder).expanduser()
        if not self.folder.is_dir():
            raise ValueError(f"folder={str(self.folder)!r}: no such folder")
        files = sorted(_text_files(self.folder, tuple(suffix.lower() for suffix in suffixes)))
        if not files:
            raise ValueError(f"folder={str(self.folder)!r}: no files ending in {', '.join(suffixes)}; see suffixes")
        self.subfolders = self._largest_subfolders(files, classes) if predict == "label" else ()
        groups = [[file for file in files if file.name.startswith(f"{name}/")] for name in self.subfolders] or [files]
        most: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self.windows = {split: self._windows(groups, split, length, most[split]) for split in most}
        if predict == "next_byte":
            self.metric, self.direction, self.best = "bits_per_byte", "minimize", 0.0
            self.spec = TaskSpec(length=length, vocabulary=256, classes=256, per_token=True, causal=True)
            self.chance = 8.0  # all bytes held equally likely
        else:
            self.spec = TaskSpec(length=length, vocabulary=256, classes=len(groups), per_token=False)
            judged = [window.label for window in self.windows["validation"]]
            self.chance = max(map(judged.count, range(len(groups)))) / len(judged)  # the best constant guess

    def _largest_subfolders(self, files: Sequence[File], most: int) -> tuple[str, ...]:
        sizes: dict[str, list[int]] = {}
        for file in files:
            if "/" in file.name:
                sizes.setdefault(file.name.split("/")[0], []).append(file.size)
        enough = [name for name in sizes if len(sizes[name]) >= LEAST_FILES]
        if len(enough) < 2:
            raise ValueError(
                f"folder={str(self.folder)!r}: predict=label needs two subfolders or more with at least {LEAST_FILES} "
                "text files each; predict=next_byte needs none"
            )
        return tuple(sorted(enough, key=lambda name: (-sum(sizes[name]), name))[:most])

    def _windows(self, groups: Sequence[Sequence[File]], split: Split, length: int, most: int) -> list[Window]:
        """The windows of a split, at most ``most``, evenly from every group and evenly spread within it."""
        if most < len(groups):
            raise ValueError(f"{split}={most}: with {len(groups)} classes it must be at least {len(groups)}")
        unasked = self.target == "next_byte"  # a file's last byte has no next one, so no window starts there
        chosen = []
        for label, group in enumerate(groups):
            if len(group) < LEAST_FILES:
                found = f"{len(group)} text files, and a split by file needs {LEAST_FILES}"
                raise ValueError(f"folder={str(self.folder)!r}: {found}")
            files = split_by_hash(group, name=lambda file: file.name)[split]
            ends = list(accumulate(math.ceil((file.size - unasked) / length) for file in files))
            kept = min(ends[-1], most // len(groups))
            for number in (index * ends[-1] // kept for index in range(kept)):
                at = bisect_right(ends, number)
                before = ends[at - 1] if at else 0
                chosen.append(Window(files[at], (number - before) * length, label))
        return chosen

    def examples(self, split: Split) -> Batch:
        """Bytes ``(windows, length)``; labels ``(windows,)``, or ``(windows, length)`` for the next byte."""
        length, rows = self.spec.length, list[tuple[int, bytes]]()
        for file, windows in groupby(self.windows[split], key=lambda window: window.file):
            try:
                rows += self._read(file, list(windows))
            except OSError as error:
                log.warning("skipped %s: %s", file.name, error)
                self.skipped += 1
        if not rows:
            raise ValueError(f"folder={str(self.folder)!r}: none of the {split} files can be read")
        inputs, padding, next_bytes = (torch.full((len(rows), length), fill) for fill in (0, True, IGNORE_INDEX))
        for row, (_, content) in enumerate(rows):
            codes = torch.tensor(list(content))
            inputs[row, : len(codes[:length])] = codes[:length]
            padding[row, : len(codes[:length])] = False
            next_bytes[row, : len(codes[1:])] = codes[1:]
        labels = next_bytes if self.spec.per_token else torch.tensor([label for label, _ in rows])
        return Batch(inputs, padding if padding.any() else None, labels)

    def _read(self, file: File, windows: Sequence[Window]) -> list[tuple[int, bytes]]:
        """The label and the bytes of each window, and one byte more where there is one: the last byte's next."""
        rows = []
        with (self.folder / file.name).open("rb") as source:
            if os.fstat(source.fileno()).st_size != file.size:
                raise OSError("its size has changed since it was listed")
            for window in windows:
                source.seek(window.start)
                rows.append((window.label, source.read(self.spec.length + 1)))
        return rows

    def predict(self, network: nn.Module, batch: Batch) -> Any:
        """One pass, or the bytes written after the others were read, ``(batch, generate)``."""
        if not self.generate:
            return super().predict(network, batch)
        if not hasattr(network, "generate"):
            raise ValueError(f"generate={self.generate}: it needs a model that writes, spaces.models.decoder.Decoder")
        written: Tensor = network.generate(batch.inputs[:, : -self.generate], self.generate)  # type: ignore[operator]
        return written

    def eval_step(self, network: nn.Module, batch: Batch) -> tuple[float, int]:
        """Right subfolders, or the bits that the next bytes cost, summed; and how many were judged."""
        if not self.spec.per_token:
            right, count = super().eval_step(network, batch)
            return right, count
        logits = network(batch).flatten(0, -2)
        nats = F.cross_entropy(logits, batch.labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
        return nats.item() / math.log(2), int((batch.labels != IGNORE_INDEX).sum())


def _text_files(folder: Path, suffixes: tuple[str, ...], inside: str = "") -> Iterator[File]:
    """All files of at least two bytes whose names end in one of ``suffixes``; links to folders are not followed."""
    try:
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in NOT_THE_AUTHORS and not entry.name.startswith("."):
                        yield from _text_files(folder, suffixes, f"{name}/")
                elif name.lower().endswith(suffixes) and entry.is_file() and (size := entry.stat().st_size) > 1:
                    yield File(name, size)
    except OSError as error:
        log.warning("skipped %s: %s", folder / inside, error)
