"""Whether training settings fit a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.training.settings import TrainSettings
from spaces.augmentation import unsupported
from spaces.dimensions import ConfigError
from spaces.instantiate import check_arguments
from spaces.tasks import Task


def validate_settings(section: Mapping[str, Any], task: Task) -> None:
    """Check the ``train`` section of an architecture.

    Raises:
        ConfigError: a setting is unknown, missing or out of range, or the task does not support it.
    """
    check_arguments(TrainSettings, section, "train")
    try:
        check_settings(TrainSettings(**section), task)
    except ValueError as error:
        raise ConfigError("\n".join(f"train: {line}" for line in str(error).splitlines())) from error


def check_settings(settings: TrainSettings, task: Task) -> None:
    """Check that the task supports the settings.

    Raises:
        ValueError: with a line for each setting that the task does not support.
    """
    problems = unsupported(settings, task)
    changed = {
        "label_smoothing": settings.label_smoothing > 0,
        "class_weights": settings.class_weights != "none",
        "distillation": settings.distillation > 0,
    }
    problems += [
        f"{name}={getattr(settings, name)!r}: it is for tasks whose loss is cross-entropy over classes; "
        f"{type(task).__name__} has its own loss"
        for name in changed
        if changed[name] and not task.uses_cross_entropy
    ]
    for name in ("distillation", "hidden", "relations"):
        if getattr(settings, name) and settings.mixup:
            problems.append(f"mixup={settings.mixup!r}: with {name} it must be 0, as the teacher saw whole examples")
    if problems:
        raise ValueError("\n".join(problems))
