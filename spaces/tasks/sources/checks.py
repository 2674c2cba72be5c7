"""What can be wrong with any task's data, looked for before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from spaces.tasks import IGNORE_INDEX, SPLITS, Batch, Split, Task

log = logging.getLogger(__name__)


def check_data(task: Task) -> None:
    """Read all splits of a task; warn of validation or test examples that training has, too.

    Raises:
        ValueError: a split is empty, asks nothing, or asks for a class that training lacks; or training has one class
            only.
    """
    for part in task.parts.values():
        check_data(part)
    if task.parts:
        return
    splits: Mapping[Split, Batch] = {split: task.cached(split) for split in SPLITS}
    for split, examples in splits.items():
        if not len(examples.inputs):
            raise ValueError(f"{split}: no examples")
        if not (examples.labels != IGNORE_INDEX).any():
            raise ValueError(f"{split}: nothing is asked; every label is {IGNORE_INDEX}")
    if not splits["train"].labels.is_floating_point() and splits["train"].decoder_input_ids is None:
        _check_classes(task, splits)
    learned = _contents(splits["train"])
    for split in SPLITS[1:]:
        again = sum(content in learned for content in _contents(splits[split]))
        if again:
            log.warning("%d of %d %s examples are in training, too", again, len(splits[split].inputs), split)


def _check_classes(task: Task, splits: Mapping[Split, Batch]) -> None:
    classes = {
        split: set(labels[labels != IGNORE_INDEX].unique().tolist()) for split, (_, _, labels, *_) in splits.items()
    }
    if len(classes["train"]) < 2:
        raise ValueError(f"train: all labels are {_named(task, classes['train'])}; it takes two classes to learn from")
    if splits["train"].labels.ndim > 1:
        return  # of single tokens a rare one may well be missing
    for split in SPLITS[1:]:
        if unknown := classes[split] - classes["train"]:
            raise ValueError(f"{split}: training has no example of {_named(task, unknown)}")


def _named(task: Task, classes: set[int]) -> str:
    return ", ".join(repr(task.names[number]) if task.names else f"class {number}" for number in sorted(classes))


def _contents(examples: Batch) -> list[bytes]:
    """Each example's tokens, padding left out."""
    inputs, padding = examples.inputs, examples.padding
    if padding is None:
        return [row.numpy().tobytes() for row in inputs]
    lengths = (~padding).sum(1).tolist()
    return [row[:length].numpy().tobytes() for row, length in zip(inputs, lengths, strict=True)]
