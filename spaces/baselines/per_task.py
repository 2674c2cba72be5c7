"""The baseline of a multi-task: for each task, the best of its own on validation; scored as the multi-task averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from spaces.baselines import Baseline
from spaces.tasks import Batch, Task


class BestOfEachTask(Baseline):
    """One baseline per task.

    Args:
        candidates: the baselines of each task, by the task's name; each has one or more.
    """

    name = "best baseline of each task"

    def __init__(self, candidates: Mapping[str, Sequence[Baseline]]) -> None:
        super().__init__()
        self.candidates = candidates

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        self.best = {name: _best(self.candidates[name], each) for name, each in task.subtasks.items()}

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The logits of each task."""
        pairs = zip(self.best.values(), batch.subtasks, strict=True)
        return tuple(baseline(each) for baseline, each in pairs if each is not None)

    def forward_task(self, name: str, batch: Batch) -> Tensor:
        """The logits of one task."""
        logits: Tensor = self.best[name](batch)
        return logits


def _best(candidates: Sequence[Baseline], task: Task) -> Baseline:
    scores = []
    for baseline in candidates:
        baseline.fit(task)
        metric = baseline.evaluate(task, "validation")[task.metric]
        scores.append(metric if task.direction == "maximize" else -metric)
    return candidates[scores.index(max(scores))]
