"""What happens to raw inputs before a network, as plain values for ``inference.py``; which tasks can be exported."""

from __future__ import annotations

from typing import Any

from spaces.dimensions import ConfigError
from spaces.metrics import METRICS
from spaces.tasks import SPLITS, Task
from spaces.tasks.arrays import Arrays
from spaces.tasks.cifar10 import Cifar10
from spaces.tasks.digits import Digits
from spaces.tasks.images import Images
from spaces.tasks.recordings import Recordings
from spaces.tasks.sources.labelled_texts import LabelledTexts
from spaces.tasks.sources.tokens import LibraryEncoder
from spaces.tasks.text import Text

IMAGES = (Images, Cifar10, Digits, Arrays)  # tasks whose tokens are those of their grid


def check_exportable(task: Task) -> None:
    """Raise :class:`ConfigError` unless the task's answers are classes, one per example or per token."""
    name = type(task).__name__
    problem = ""
    if task.spec.subtasks:
        problem = "it has several tasks"
    elif task.spec.answer_length is not None:
        problem = "its answers are sequences of their own, such as translations"
    elif task.metric not in METRICS:
        problem = f"its answers are not classes (its metric is {task.metric})"
    if problem:
        raise ConfigError(f"{name} cannot be exported yet: {problem}; classifiers can")


def is_padded(task: Task) -> bool:
    """Whether any example of the task is padded."""
    return any(task.data(split).lengths is not None for split in SPLITS)


def preprocessing(task: Task) -> tuple[dict[str, Any], str | None]:
    """The settings of ``inference.py``, and the content of ``tokenizer.json`` if there is one."""
    spec, tokenizer = task.spec, None
    settings: dict[str, Any] = {
        "kind": "tokens",
        "class_names": [str(name) for name in task.class_names] or [str(number) for number in range(spec.classes)],
        "per_token": spec.per_token,
        "vocabulary": spec.vocabulary,
        "features": spec.features,
    }
    if isinstance(task, LabelledTexts | Text):
        tokenizer = task.encoder.file if isinstance(task.encoder, LibraryEncoder) else None
        settings |= {"kind": "text", "tokens": "bytes" if tokenizer is None else "tokenizer.json"}
        settings["special_tokens"] = task.tokens.special_tokens
    elif isinstance(task, IMAGES) and task.grid is not None:
        grid = task.grid
        settings |= {"kind": "image", "height": grid.height, "width": grid.width, "channels": grid.channels}
        settings |= {"patch": grid.patch, "levels": grid.levels}
    elif isinstance(task, Recordings):
        settings |= {"kind": "audio", "rate": task.rate}
    return settings, tokenizer
