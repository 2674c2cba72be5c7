"""Checks of a task's data before training."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from spaces.tasks import IGNORE_INDEX, SPLITS, Examples, Split, Task

log = logging.getLogger(__name__)


def check_data(task: Task) -> None:
    """Load all splits of a task; log a warning for validation or test examples that are also in train.

    Raises:
        ValueError: a split is empty or has no labels; train or validation have a single class; or validation or test
            have a class that train lacks.
    """
    for subtask in task.subtasks.values():
        check_data(subtask)
    if task.subtasks:
        return
    splits: Mapping[Split, Examples] = {split: task.data(split) for split in SPLITS}
    for split, examples in splits.items():
        if not examples.size:
            raise ValueError(f"{split}: no examples")
        if not (examples.labels != IGNORE_INDEX).any():
            raise ValueError(f"{split}: no labels; all are {IGNORE_INDEX}")
    if not splits["train"].labels.is_floating_point() and task.spec.answer_length is None:
        _check_classes(task, splits)
    seen = set(task.contents("train"))
    for split in SPLITS[1:]:
        repeated = sum(content in seen for content in task.contents(split))
        if repeated:
            log.warning("%d of %d %s examples are also in train", repeated, splits[split].size, split)


def _check_classes(task: Task, splits: Mapping[Split, Examples]) -> None:
    classes = {
        split: set(batch.labels[batch.labels != IGNORE_INDEX].unique().tolist()) for split, batch in splits.items()
    }
    # With one class in validation, always predicting it would be perfect and nothing could be compared.
    for split in SPLITS[:2]:
        if len(classes[split]) < 2:
            raise ValueError(
                f"{split}: all {splits[split].size} examples are of {_named(task, classes[split])}; "
                "at least two classes are needed"
            )
    if splits["train"].labels.ndim > 1:
        return  # a rare class of single tokens may well be missing from train
    for split in SPLITS[1:]:
        if unknown := classes[split] - classes["train"]:
            raise ValueError(f"{split}: train has no example of {_named(task, unknown)}")


def _named(task: Task, classes: set[int]) -> str:
    names = task.class_names
    return ", ".join(repr(names[number]) if names else f"class {number}" for number in sorted(classes))
