"""A hint at other metrics where the accuracy says little, because most examples are of one class."""

from __future__ import annotations

from spaces.tasks import IGNORE_INDEX, Task

TIMES_OTHERS = 3  # examples of the largest class, of as many as each other class has on average


def describe_imbalance(task: Task) -> list[str]:
    """One line for a task whose objective is the accuracy on unbalanced classes, or for each such subtask.

    Unbalanced are classes the largest of which has at least ``TIMES_OTHERS`` times the labels in validation that each
    other one has on average: three quarters of two classes, a quarter of ten.
    """
    if task.subtasks:
        return [line for subtask in task.subtasks.values() for line in describe_imbalance(subtask)]
    if task.metric not in ("accuracy", "error_rate"):
        return []
    labels = task.labels_of("validation")
    classes, counts = labels[labels != IGNORE_INDEX].unique(return_counts=True)
    largest, total = int(counts.max()), int(counts.sum())
    if largest * (len(counts) - 1) < TIMES_OTHERS * (total - largest):
        return []
    number = int(classes[counts.argmax()])
    name = repr(task.class_names[number]) if task.class_names else number
    what = "labels" if task.spec.per_token else "examples"
    return [
        f"{largest / total:.0%} of the validation {what} are of class {name}: "
        "task.metric=balanced_accuracy, macro_f1 or auroc may tell more than accuracy."
    ]
