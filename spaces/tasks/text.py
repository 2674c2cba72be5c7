"""Real text as bytes from a folder of files: classification by subfolder, or language modelling.

Files, not windows, are split 8:1:1, so that no file is in two splits.
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

from spaces.baselines.ngram import NGram
from spaces.tasks import IGNORE_INDEX, SPLITS, Batch, Split, Task, TaskSpec, check_whole, majority_share, split_sizes
from spaces.tasks.sources.splits import MIN_TO_SPLIT, digest, largest_classes, split_by_hash

log = logging.getLogger(__name__)

SUFFIXES = (".py", ".txt", ".md", ".rst")
SKIPPED_DIRS = {"site-packages", "dist-packages", "node_modules", "__pycache__"}  # installed or generated files


class File(NamedTuple):
    """A text file; ``name`` is its path relative to the folder, with slashes on every platform."""

    name: str
    size: int  # bytes


class Window(NamedTuple):
    """At most ``length`` consecutive bytes of a file; ``label`` is the index of its subfolder."""

    file: File
    start: int
    label: int


class Text(Task):
    """Accuracy of the subfolder, or bits per byte of the next byte.

    File names and sizes are read at construction, contents at first use.

    Args:
        folder: searched recursively; null: the source code of the Python standard library. Hidden folders and those of
            installed packages are skipped.
        predict: ``label``, the subfolder of ``folder`` that contains the file, or ``next_byte``.
        length: bytes per window; the last one of a file may be shorter and is padded.
        generate: with ``next_byte``, the number of bytes at the end of a window that are generated when latency is
            measured, with the others as the prompt; 0 measures one forward pass over the window instead.
        classes: with ``label``, number of subfolders at most; the largest by bytes are kept.
        suffixes: endings of the names of text files.
        train: training windows at most, evenly spaced over all files; with ``label``, equally many per subfolder.
        validation: validation windows at most, likewise.
        test: test windows at most, likewise.
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
        suffixes: Sequence[str] = SUFFIXES,
        train: int = 800,
        validation: int = 160,
        test: int = 320,
    ) -> None:
        check_whole(2, length=length, classes=classes)
        limits = split_sizes(train=train, validation=validation, test=test)
        if predict not in ("label", "next_byte"):
            raise ValueError(f"predict={predict!r}: it must be label or next_byte")
        if isinstance(suffixes, str) or not suffixes or not all(str(suffix).startswith(".") for suffix in suffixes):
            raise ValueError(f"suffixes={suffixes!r}: it must be a list of endings such as .txt")
        check_whole(0, generate=generate)
        if generate and predict != "next_byte":
            raise ValueError(f"generate={generate}: only next bytes can be generated; it needs predict=next_byte")
        if generate >= length:
            raise ValueError(f"generate={generate}: with length={length} it must be 0..{length - 1}")
        self.target, self.generate = predict, generate
        self.folder = Path(sysconfig.get_path("stdlib") if folder is None else folder).expanduser()
        if not self.folder.is_dir():
            raise ValueError(f"folder={str(self.folder)!r}: no such folder")
        files = sorted(_text_files(self.folder, tuple(suffix.lower() for suffix in suffixes)))
        if not files:
            raise ValueError(f"folder={str(self.folder)!r}: no files ending in {', '.join(suffixes)}; see suffixes")
        self.subfolders = self._largest_subfolders(files, classes) if predict == "label" else ()
        groups = [[file for file in files if file.name.startswith(f"{name}/")] for name in self.subfolders] or [files]
        self.windows = {split: self._windows(groups, split, length, limits[split]) for split in SPLITS}
        if predict == "next_byte":
            self.metric, self.direction, self.best = "bits_per_byte", "minimize", 0.0
            self.spec = TaskSpec(length=length, vocabulary=256, classes=256, per_token=True, causal=True)
            self.chance = 8.0  # a uniform distribution over all bytes
        else:
            self.spec = TaskSpec(length=length, vocabulary=256, classes=len(groups), per_token=False)
            self.chance = majority_share(window.label for window in self.windows["validation"])

    def _largest_subfolders(self, files: Sequence[File], classes: int) -> tuple[str, ...]:
        sizes: dict[str, list[int]] = {}
        for file in files:
            if "/" in file.name:
                sizes.setdefault(file.name.split("/")[0], []).append(file.size)
        enough = [name for name in sizes if len(sizes[name]) >= MIN_TO_SPLIT]
        if len(enough) < 2:
            raise ValueError(
                f"folder={str(self.folder)!r}: predict=label needs two subfolders or more with at least {MIN_TO_SPLIT} "
                "text files each; predict=next_byte needs no subfolders"
            )
        return largest_classes({name: sum(sizes[name]) for name in enough}, classes)

    def _windows(self, groups: Sequence[Sequence[File]], split: Split, length: int, limit: int) -> list[Window]:
        """At most ``limit`` windows of a split, equally many of each group, evenly spaced within it."""
        if limit < len(groups):
            raise ValueError(f"{split}={limit}: with {len(groups)} classes it must be at least {len(groups)}")
        unlabelled = self.target == "next_byte"  # the last byte of a file has no next one, so no window starts there
        chosen = []
        for label, group in enumerate(groups):
            if len(group) < MIN_TO_SPLIT:
                found = f"{len(group)} text files; splitting by file needs {MIN_TO_SPLIT}"
                raise ValueError(f"folder={str(self.folder)!r}: {found}")
            files = sorted(split_by_hash(group, key=_name)[split], key=lambda file: digest(file.name))
            ends = list(accumulate(math.ceil((file.size - unlabelled) / length) for file in files))
            kept = min(ends[-1], limit // len(groups))
            for number in (index * ends[-1] // kept for index in range(kept)):
                at = bisect_right(ends, number)
                before = ends[at - 1] if at else 0
                chosen.append(Window(files[at], (number - before) * length, label))
        return chosen

    def examples(self, split: Split) -> Batch:
        """Bytes ``(windows, length)``; labels ``(windows,)``, or ``(windows, length)`` for the next byte.

        Files that cannot be read are skipped with a warning.
        """
        length, rows = self.spec.length, list[tuple[int, bytes]]()
        for file, windows in groupby(self.windows[split], key=lambda window: window.file):
            try:
                rows += self._read(file, list(windows))
            except OSError as error:
                log.warning("skipped %s: %s", file.name, error)
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
        """The label and the bytes of each window, and the byte after it if there is one."""
        rows = []
        with (self.folder / file.name).open("rb") as source:
            if os.fstat(source.fileno()).st_size != file.size:
                raise OSError("its size has changed since the folder was listed")
            for window in windows:
                source.seek(window.start)
                rows.append((window.label, source.read(self.spec.length + 1)))
        return rows

    def predict(self, network: nn.Module, batch: Batch) -> Any:
        """A forward pass, or a prompt with ``generate`` new bytes after it, ``(batch, length)``."""
        if not self.generate:
            return super().predict(network, batch)
        if not hasattr(network, "generate"):
            raise ValueError(
                f"generate={self.generate}: it needs a model that can generate, such as spaces.models.decoder.Decoder"
            )
        prompt = batch.inputs[:, : -self.generate]
        generated: Tensor = network.generate(prompt, self.generate)  # type: ignore[operator]
        return generated

    def baselines(self) -> Sequence[nn.Module] | None:
        """An n-gram model for the next byte."""
        return (NGram(),) if self.spec.per_token else super().baselines()

    def eval_step(self, network: nn.Module, batch: Batch) -> tuple[float, int]:
        """The number of correct predictions, or the sum of bits over the next bytes; and the number of labels."""
        if not self.spec.per_token:
            correct, count = super().eval_step(network, batch)
            return correct, count
        logits = network(batch).flatten(0, -2)
        nats = F.cross_entropy(logits, batch.labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
        return nats.item() / math.log(2), int((batch.labels != IGNORE_INDEX).sum())


def _name(file: File) -> str:
    return file.name


def _text_files(folder: Path, suffixes: tuple[str, ...], inside: str = "") -> Iterator[File]:
    """Files of at least two bytes whose names end in one of ``suffixes``; symbolic links to folders are ignored."""
    try:
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in SKIPPED_DIRS and not entry.name.startswith("."):
                        yield from _text_files(folder, suffixes, f"{name}/")
                elif name.lower().endswith(suffixes) and entry.is_file() and (size := entry.stat().st_size) > 1:
                    yield File(name, size)
    except OSError as error:
        log.warning("skipped %s: %s", folder / inside, error)
