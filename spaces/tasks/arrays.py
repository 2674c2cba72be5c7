"""Classification of the user's own arrays from one ``.npz`` file: token ids, frames of numbers, or images.

The type and shape of the inputs decide, where ``n`` is the number of examples:

- integers ``(n, length)``: token ids, from 0;
- floating-point numbers ``(n, length, features)``: frames, used without normalization, so scale them to about -1..1;
- uint8 ``(n, height, width)`` or ``(n, height, width, channels)``: images, cut into patches.

Labels are integers or strings; class k is the k-th distinct label in sorted order, so integers need not be consecutive.
There is one label per example or one per token, ``IGNORE_INDEX`` at tokens without a label.
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
from torch import Tensor

from spaces.tasks import IGNORE_INDEX, SPLITS, Batch, Examples, Split, TaskSpec, check_whole, majority_share
from spaces.tasks.sources.image_patches import Grid
from spaces.tasks.sources.image_task import ImageTask

Array = NDArray[Any]
MAX_IDS = 1 << 20  # a larger vocabulary would make the embedding too large
MAX_CHANNELS = 4
ACCEPTED = (
    "integers (n, length), floating-point numbers (n, length, features), or uint8 (n, height, width) with or without "
    "channels"
)


@dataclass(frozen=True)
class Part:
    """The arrays of one split, or of all examples before they are split."""

    inputs: Array
    labels: Array
    padding: Array | None

    def select(self, indices: Array) -> Part:
        """The examples at ``indices``."""
        return Part(self.inputs[indices], self.labels[indices], None if self.padding is None else self.padding[indices])


class Arrays(ImageTask):
    """Accuracy of the labels.

    The file is read at construction, and arrays are kept in their stored type: images take one byte per pixel and
    channel, and four more bytes as patches unless there are many.

    Args:
        file: a ``.npz`` file, as written by ``numpy.savez``.
        inputs: name of the input array. If the file contains it with the prefix ``train_``, there is an array for each
            split, with the prefixes ``train_``, ``validation_`` and ``test_``. Otherwise examples are split 8:1:1 at
            random, which is wrong for dependent examples, such as overlapping windows of one recording.
        labels: name of the label array, likewise.
        padding: name of the padding mask ``(n, length)``, true at padding at the end, likewise; null: no padding.
        patch: for images, height and width of a patch in pixels; null: each pixel is a token, by its gray level.
        causal: the label of a token may depend on this and earlier tokens only.
        train: training examples at most; null: all.
        validation: validation examples at most; null: all.
        test: test examples at most; null: all.
        seed: random seed of the split.
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
        limits: Mapping[Split, int | None] = {"train": train, "validation": validation, "test": test}
        check_whole(1, **{split: limit for split, limit in limits.items() if limit is not None})
        if file is None:
            raise ValueError("file=None: name a file written by numpy.savez(file, inputs=..., labels=...)")
        self.file = Path(file).expanduser()
        if not zipfile.is_zipfile(self.file):
            found = "not an .npz file, as written by numpy.savez(file, inputs=..., labels=...)"
            raise ValueError(f"file={file!r}: {found if self.file.is_file() else 'no such file'}")
        parts = _read(self.file, inputs, labels, padding)
        kinds = np.unique(np.concatenate([part.labels[_labelled(part.labels)] for part in parts]))
        self.grid = _grid(inputs, parts[0], patch)
        if causal and parts[0].labels.ndim == 1:
            raise ValueError("causal=True: it takes a label per token")
        if self.grid is not None:
            self.use(self.grid, len(kinds))
        else:
            self.spec = _spec(parts, classes=len(kinds), causal=causal)
        self.class_names = tuple(map(str, kinds))
        generator = np.random.default_rng(seed)
        orders = [generator.permutation(len(part.inputs)) for part in parts]
        if len(parts) == 1:
            tenth = max(1, round(len(orders[0]) / 10))
            parts, orders = parts * 3, [orders[0][2 * tenth :], orders[0][:tenth], orders[0][tenth : 2 * tenth]]
        self.parts: dict[Split, Part] = {}
        for split, part, order in zip(SPLITS, parts, orders, strict=True):
            chosen = part.select(np.sort(order[: limits[split]]))
            classes = np.where(_labelled(chosen.labels), np.searchsorted(kinds, chosen.labels), IGNORE_INDEX)
            self.parts[split] = Part(chosen.inputs, classes, chosen.padding)
        validation_labels = self.parts["validation"].labels
        self.chance = majority_share(validation_labels[_labelled(validation_labels)].tolist())

    def read_images(self, split: Split) -> tuple[NDArray[np.uint8], Tensor]:
        """The inputs and classes, if they are images."""
        return self.parts[split].inputs, torch.from_numpy(self.parts[split].labels)

    def examples(self, split: Split) -> Examples:
        """Ids ``(n, length)`` or frames ``(n, length, features)``, and classes ``(n,)`` or ``(n, length)``."""
        if self.grid is not None:
            return super().examples(split)
        part = self.parts[split]
        labels = torch.from_numpy(part.labels)
        inputs = torch.from_numpy(part.inputs.astype(np.int64 if self.spec.features is None else np.float32))
        padding = None if part.padding is None or not part.padding.any() else torch.from_numpy(part.padding)
        return Batch(inputs, padding, labels)


def _read(file: Path, inputs: str, labels: str, padding: str | None) -> list[Part]:
    """The three splits, or one part that is still to be split."""
    try:
        with np.load(file, allow_pickle=False) as stored:  # unpickling could run arbitrary code

            def array(name: str) -> Array:
                if name not in stored:
                    raise ValueError(f"no array {name!r}; there are {', '.join(map(repr, stored.files)) or 'none'}")
                try:
                    return np.asarray(stored[name])
                except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
                    reason = getattr(error, "strerror", None) or error
                    raise ValueError(f"array {name!r} can't be read: {reason}") from error

            splits = [f"{split}_" for split in SPLITS] if f"train_{inputs}" in stored else [""]
            parts = [
                _part(array, f"{split}{inputs}", f"{split}{labels}", None if padding is None else f"{split}{padding}")
                for split in splits
            ]
            for part in parts[1:]:
                _check_equal_shapes(parts[0], part)
            return parts
    except zipfile.BadZipFile as error:
        raise ValueError(f"file={str(file)!r} can't be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"file={str(file)!r}: {error}") from error


def _check_equal_shapes(part: Part, other: Part) -> None:
    for a, b in ((part.inputs, other.inputs), (part.labels, other.labels)):
        if (a.shape[1:], a.dtype.kind) != (b.shape[1:], b.dtype.kind):
            raise ValueError(f"the splits differ: {a.dtype} of shape {a.shape}, and {b.dtype} of shape {b.shape}")


def _part(array: Callable[[str], Array], inputs: str, labels: str, padding: str | None) -> Part:
    """The arrays of a split, checked, with inputs 0 and labels ``IGNORE_INDEX`` at padding."""
    values, targets = array(inputs), array(labels)
    images = values.dtype == np.uint8 and values.ndim in (3, 4)
    if 0 in values.shape or not (images or (values.dtype.kind, values.ndim) in {("i", 2), ("u", 2), ("f", 3)}):
        raise ValueError(f"{inputs}: {values.dtype} of shape {values.shape}; it takes {ACCEPTED}")
    if targets.dtype.kind not in "iubU" or (targets.dtype.kind == "U" and targets.ndim > 1):
        raise ValueError(
            f"{labels}: {targets.dtype} of shape {targets.shape}; it takes integers, or a string per example"
        )
    expected = [values.shape[:1]] if images else [values.shape[:1], values.shape[:2]]
    if targets.shape not in expected:
        wanted = " or ".join(map(str, expected))
        raise ValueError(f"{labels}: shape {targets.shape}; with {inputs} of shape {values.shape} it takes {wanted}")
    if targets.dtype.kind in "iub":
        targets = targets.astype(np.int64)
    mask = None
    if padding is not None:
        mask = array(padding)
        if images or mask.dtype.kind not in "iub" or mask.shape != values.shape[:2]:
            found = f"{mask.dtype} of shape {mask.shape}"
            raise ValueError(f"{padding}: {found}; with {inputs} {values.shape} it takes 0 or 1 per token")
        mask = mask != 0
        _refuse_rows(mask[:, 0] | (mask[:, :-1] > mask[:, 1:]).any(1), padding, "padding must be at the end")
        values = values.copy()
        values[mask] = 0
        if targets.ndim == 2:
            targets = np.where(mask, IGNORE_INDEX, targets)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        _refuse_rows(~np.isfinite(values).all((1, 2)), inputs, "a number is NaN, infinite or too large")
    elif not images:
        _refuse_rows((values < 0).any(1) | (values >= MAX_IDS).any(1), inputs, f"ids must be 0..{MAX_IDS - 1}")
    unlabelled = ~_labelled(targets).reshape(len(targets), -1).any(1)
    _refuse_rows(unlabelled, labels, f"no labels; {IGNORE_INDEX} marks a token without a label")
    if images:
        values = np.moveaxis(values.reshape(*values.shape[:3], -1), 3, 1)
        if values.shape[1] > MAX_CHANNELS:
            raise ValueError(f"{inputs}: {values.shape[1]} channels, the last axis; it takes 1..{MAX_CHANNELS}")
    return Part(values, targets, mask)


def _grid(name: str, part: Part, patch: int | None) -> Grid | None:
    """How images become tokens; None if the inputs are none."""
    if part.inputs.ndim == 4:
        channels, height, width = part.inputs.shape[1:]
        return Grid(height=height, width=width, channels=channels, patch=patch)
    if patch is not None:
        raise ValueError(
            f"patch={patch}: it must be null, as {name} are no images, which are uint8 (n, height, width) or "
            "(n, height, width, channels)"
        )
    return None


def _spec(parts: list[Part], *, classes: int, causal: bool) -> TaskSpec:
    """The spec of ids or frames."""
    inputs, per_token = parts[0].inputs, parts[0].labels.ndim == 2
    if inputs.dtype.kind == "f":
        features, vocabulary = int(inputs.shape[2]), None
    else:
        features, vocabulary = None, max(int(part.inputs.max()) for part in parts) + 1
    length = int(inputs.shape[1])
    return TaskSpec(length, classes, per_token, vocabulary=vocabulary, features=features, causal=causal)


def _labelled(labels: Array) -> Array:
    return labels != IGNORE_INDEX if labels.dtype.kind == "i" else np.ones(labels.shape, dtype=bool)


def _refuse_rows(wrong: Any, name: str, rule: str) -> None:
    """Raise ``ValueError`` if a row breaks a rule; ``wrong`` is ``(rows,)`` bool."""
    if wrong.any():
        where = f"row {wrong.argmax()} and {wrong.sum() - 1} others" if wrong.sum() > 1 else f"row {wrong.argmax()}"
        raise ValueError(f"{name}: {where}: {rule}")
