"""Arrays of the user's own, from one ``.npz`` file: token ids, frames of numbers or pictures, and their labels.

What a token is follows from the inputs' type and shape, ``n`` being the number of examples:

- whole numbers ``(n, length)``: token ids, from 0;
- floating-point numbers ``(n, length, features)``: frames, taken as they are, so bring them to about -1..1;
- uint8 ``(n, height, width)`` or ``(n, height, width, channels)``: pictures, cut into patches.

Labels are whole numbers or texts; the class k is the k-th in their order, so that they need not begin at 0 nor be
without gaps. There is one an example, or one a token, ``IGNORE_INDEX`` where nothing is asked.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spaces.tasks import IGNORE_INDEX, SPLITS, Batch, Split, Task, TaskSpec, check_whole
from spaces.tasks.sources.image_patches import Grid

Array = NDArray[Any]
MOST_IDS = 1 << 20  # an embedding of more would not fit where a search runs
MOST_CHANNELS = 4
ACCEPTED = (
    "whole numbers (n, length), floating-point numbers (n, length, features), or uint8 (n, height, width) with or "
    "without channels"
)


@dataclass(frozen=True)
class Part:
    """Examples that lie in the file together; ``labels`` are their classes' numbers once these are known."""

    inputs: Array
    labels: Array
    padding: Array | None

    def rows(self, chosen: Array) -> Part:
        """The examples of these numbers."""
        return Part(self.inputs[chosen], self.labels[chosen], None if self.padding is None else self.padding[chosen])


class Arrays(Task):
    """Fraction of labels that are told.

    The file is read at construction, and arrays are kept as they are stored: pictures take a byte a pixel and channel,
    and four more once they are patches.

    Args:
        file: the ``.npz``, as ``numpy.savez`` writes it.
        inputs: the array's name. Where the file has ``train_`` before that name, there are arrays for each split, named
            ``train_``, ``validation_`` and ``test_``; otherwise rows are dealt out 8 to 1 to 1 in a random order, which
            suits no rows that are each other's neighbours, such as overlapping windows of one recording.
        labels: that of the labels, likewise.
        padding: that of an array ``(n, length)``, true at the padding at the end of an example; null: there is none.
        patch: of pictures, pixels a side; null: a pixel of one channel is a token, by its grey.
        causal: the label of a token may depend on this and earlier tokens alone.
        train: examples to learn from at most; null: all.
        validation: examples that the search judges by at most; null: all.
        test: examples that the front is reported on at most; null: all.
        seed: of the order in which examples are dealt out and taken.
    """

    def __init__(
        self,
        *,
        file: str | None = None,
        inputs: str = "inputs",
        labels: str = "labels",
        padding: str | None = None,
        patch: int | None = None,
        causal: bool = False,
        train: int | None = None,
        validation: int | None = None,
        test: int | None = None,
        seed: int = 0,
    ) -> None:
        check_whole(0, seed=seed)
        most: Mapping[Split, int | None] = {"train": train, "validation": validation, "test": test}
        check_whole(1, **{split: limit for split, limit in most.items() if limit is not None})
        if file is None:
            raise ValueError("file=None: name a file as numpy.savez(file, inputs=..., labels=...) writes it")
        self.file = Path(file).expanduser()
        if not zipfile.is_zipfile(self.file):
            found = "no .npz file, as numpy.savez(file, inputs=..., labels=...) writes it"
            raise ValueError(f"file={file!r}: {found if self.file.is_file() else 'no such file'}")
        parts = _parts(self.file, inputs, labels, padding)
        kinds = np.unique(np.concatenate([part.labels[_asked(part.labels)] for part in parts]))
        self.spec, self.grid = _sizes(inputs, parts, patch, classes=len(kinds), causal=causal)
        self.names = tuple(map(str, kinds))
        generator = np.random.default_rng(seed)
        orders = [generator.permutation(len(part.inputs)) for part in parts]
        if len(parts) == 1:
            tenth = max(1, round(len(orders[0]) / 10))
            parts, orders = parts * 3, [orders[0][2 * tenth :], orders[0][:tenth], orders[0][tenth : 2 * tenth]]
        self.stored: dict[Split, Part] = {}
        for split, part, order in zip(SPLITS, parts, orders, strict=True):
            chosen = part.rows(np.sort(order[: most[split]]))
            classes = np.where(_asked(chosen.labels), np.searchsorted(kinds, chosen.labels), IGNORE_INDEX)
            self.stored[split] = Part(chosen.inputs, classes, chosen.padding)
        judged = self.stored["validation"].labels
        counts = np.bincount(judged[_asked(judged)])
        self.chance = float(counts.max() / counts.sum())  # the best constant guess

    def examples(self, split: Split) -> Batch:
        """Ids ``(n, length)`` or frames ``(n, length, features)``, and classes ``(n,)`` or ``(n, length)``."""
        part = self.stored[split]
        labels = torch.from_numpy(part.labels)
        if self.grid is not None:
            return Batch(self.grid.tokens(torch.from_numpy(part.inputs)), None, labels)
        inputs = torch.from_numpy(part.inputs.astype(np.int64 if self.spec.features is None else np.float32))
        padding = None if part.padding is None or not part.padding.any() else torch.from_numpy(part.padding)
        return Batch(inputs, padding, labels)


def _parts(file: Path, inputs: str, labels: str, padding: str | None) -> list[Part]:
    """What the file holds: the three splits, or one part that is to be dealt out."""
    try:
        with np.load(file, allow_pickle=False) as stored:  # a pickle can run code

            def array(name: str) -> Array:
                if name not in stored:
                    raise ValueError(f"no array {name!r}; there are {', '.join(map(repr, stored.files)) or 'none'}")
                try:
                    return np.asarray(stored[name])
                except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
                    raise ValueError(f"array {name!r}: {error}") from error

            splits = [f"{split}_" for split in SPLITS] if f"train_{inputs}" in stored else [""]
            parts = [
                _part(array, f"{split}{inputs}", f"{split}{labels}", None if padding is None else f"{split}{padding}")
                for split in splits
            ]
            for part in parts[1:]:
                _check_alike(parts[0], part)
            return parts
    except ValueError as error:
        raise ValueError(f"file={str(file)!r}: {error}") from error


def _check_alike(part: Part, other: Part) -> None:
    for a, b in ((part.inputs, other.inputs), (part.labels, other.labels)):
        if (a.shape[1:], a.dtype.kind) != (b.shape[1:], b.dtype.kind):
            raise ValueError(f"the splits differ: {a.dtype} of shape {a.shape}, and {b.dtype} of shape {b.shape}")


def _part(array: Callable[[str], Array], inputs: str, labels: str, padding: str | None) -> Part:
    """Arrays of one split by name, checked, with zeros and ``IGNORE_INDEX`` where there is padding."""
    values, answers = array(inputs), array(labels)
    pictures = values.dtype == np.uint8 and values.ndim in (3, 4)
    if 0 in values.shape or not (pictures or (values.dtype.kind, values.ndim) in {("i", 2), ("u", 2), ("f", 3)}):
        raise ValueError(f"{inputs}: {values.dtype} of shape {values.shape}; it takes {ACCEPTED}")
    if answers.dtype.kind not in "iubU" or (answers.dtype.kind == "U" and answers.ndim > 1):
        raise ValueError(f"{labels}: {answers.dtype} of shape {answers.shape}; it takes whole numbers, or a text each")
    expected = [values.shape[:1]] if pictures else [values.shape[:1], values.shape[:2]]
    if answers.shape not in expected:
        wanted = " or ".join(map(str, expected))
        raise ValueError(f"{labels}: shape {answers.shape}; with {inputs} of shape {values.shape} it takes {wanted}")
    if answers.dtype.kind in "iub":
        answers = answers.astype(np.int64)
    hidden = None
    if padding is not None:
        hidden = array(padding)
        if pictures or hidden.dtype.kind not in "iub" or hidden.shape != values.shape[:2]:
            found = f"{hidden.dtype} of shape {hidden.shape}"
            raise ValueError(f"{padding}: {found}; with {inputs} {values.shape} it takes 0 or 1 for each token")
        hidden = hidden != 0
        _none(hidden[:, 0] | (hidden[:, :-1] > hidden[:, 1:]).any(1), padding, "padding must stand at the end")
        values = values.copy()
        values[hidden] = 0
        if answers.ndim == 2:
            answers = np.where(hidden, IGNORE_INDEX, answers)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        _none(~np.isfinite(values).all((1, 2)), inputs, "a number is NaN, infinite or too large")
    elif not pictures:
        _none((values < 0).any(1) | (values >= MOST_IDS).any(1), inputs, f"ids must be 0..{MOST_IDS - 1}")
    _none(
        ~_asked(answers).reshape(len(answers), -1).any(1),
        labels,
        f"{IGNORE_INDEX} asks nothing, and there is nothing else",
    )
    if pictures:
        values = np.moveaxis(values.reshape(*values.shape[:3], -1), 3, 1)
        if values.shape[1] > MOST_CHANNELS:
            raise ValueError(f"{inputs}: {values.shape[1]} channels, which stand last; it takes 1..{MOST_CHANNELS}")
    return Part(values, answers, hidden)


def _sizes(
    name: str, parts: list[Part], patch: int | None, *, classes: int, causal: bool
) -> tuple[TaskSpec, Grid | None]:
    """Of the task, and how pictures are cut if the inputs are such."""
    first = parts[0]
    per_token = first.labels.ndim == 2
    if causal and not per_token:
        raise ValueError("causal=True: it takes a label for each token")
    if first.inputs.ndim == 4:
        channels, height, width = first.inputs.shape[1:]
        grid = Grid(height=height, width=width, channels=channels, patch=patch)
        return grid.spec(classes), grid
    if patch is not None:
        raise ValueError(f"patch={patch}: {name} are no pictures; these are uint8 (n, height, width) or more")
    if first.inputs.dtype.kind == "f":
        features, vocabulary = int(first.inputs.shape[2]), None
    else:
        features, vocabulary = None, max(int(part.inputs.max()) for part in parts) + 1
    length = int(first.inputs.shape[1])
    return TaskSpec(length, classes, per_token, vocabulary=vocabulary, features=features, causal=causal), None


def _asked(labels: Array) -> Array:
    return labels != IGNORE_INDEX if labels.dtype.kind == "i" else np.ones(labels.shape, dtype=bool)


def _none(wrong: Any, name: str, rule: str) -> None:
    """Raise ``ValueError`` unless a rule holds in all rows; ``wrong`` is ``(rows,)`` bool."""
    if wrong.any():
        where = f"row {wrong.argmax()} and {wrong.sum() - 1} others" if wrong.sum() > 1 else f"row {wrong.argmax()}"
        raise ValueError(f"{name}: {where}: {rule}")
