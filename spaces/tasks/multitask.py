"""Several tasks at once: each has its own embedding and head, and all share one trunk.

Caruana, "Multitask Learning", 1997. Every step of training takes a batch of each task; what is timed is one example of
each. The tasks' metrics are made comparable: 0 is what a model that learned nothing scores, 1 is perfect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from spaces.tasks import Batch, Split, Task, TaskSpec


class Multitask(Task):
    """The mean, over tasks, of how far each one's metric is on its way from chance to best.

    Args:
        tasks: two or more by name; none causal, none whose answer is a sequence of its own.
    """

    metric = "progress"
    chance = 0.0
    batch_size = 8  # of each task

    def __init__(self, *, tasks: Mapping[str, Task]) -> None:
        if len(tasks) < 2:
            raise ValueError(f"tasks: {', '.join(tasks) or 'none'}; it must be two or more")
        for name, task in tasks.items():
            if not isinstance(task, Task):
                raise ValueError(f"tasks.{name}: {task!r} is no task")
            if task.spec.causal or task.spec.answer_length is not None or task.parts:
                kind = "causal" if task.spec.causal else "several tasks" if task.parts else "a sequence as its answer"
                raise ValueError(f"tasks.{name}: {kind}; an encoder that tasks share can't serve it")
        self.parts = dict(tasks)
        spec = {name: task.spec for name, task in tasks.items()}
        self.spec = TaskSpec(length=max(size.length for size in spec.values()), classes=0, per_token=False, parts=spec)

    def examples(self, split: Split) -> Batch:
        """All examples of every task."""
        return _side_by_side([task.cached(split) for task in self.parts.values()])

    def steps(self, split: Split, batch_size: int) -> int:
        """As many as the largest task has."""
        return max(task.steps(split, batch_size) for task in self.parts.values())

    def batches(self, split: Split, batch_size: int, *, shuffle: int | None = None) -> Iterator[Batch]:
        """A batch of each task side by side; smaller tasks begin anew, or where order is kept, have None to add."""
        columns: Iterator[Sequence[Batch | None]]
        if shuffle is None:
            columns = zip_longest(*(task.batches(split, batch_size) for task in self.parts.values()))
        else:
            endless = (_endless(task, split, batch_size, shuffle) for task in self.parts.values())
            columns = islice(zip(*endless, strict=True), self.steps(split, batch_size))
        yield from map(_side_by_side, columns)

    def sample(self, batch: int = 1, length: int | None = None) -> Batch:
        """``batch`` examples of each task, each at its own full length or, if that is shorter, at ``length``."""
        if length is not None and not 1 <= length <= self.spec.length:
            raise ValueError(f"length={length}: the task has lengths from 1 to {self.spec.length}")
        longest = self.spec.length if length is None else length
        return _side_by_side([task.sample(batch, min(longest, task.spec.length)) for task in self.parts.values()])

    def loss(self, logits: Any, batch: Batch) -> Tensor:
        """The mean of the tasks' losses; ``logits`` are a tensor for each."""
        losses = [
            task.loss(part_logits, part)
            for task, part_logits, part in zip(self.parts.values(), logits, batch.parts, strict=True)
            if part is not None
        ]
        return torch.stack(losses).mean()

    def eval_step(self, network: nn.Module, batch: Batch) -> list[Any]:
        """What each task needs to know of its part; None where it has none."""
        return [
            None if part is None else task.eval_step(_Part(network, name), part)
            for (name, task), part in zip(self.parts.items(), batch.parts, strict=True)
        ]

    def compute_metrics(self, judged: Sequence[list[Any]]) -> dict[str, float]:
        """The mean progress, and the metrics of each task under its name."""
        progress, metrics = [], dict[str, float]()
        for (name, task), parts in zip(self.parts.items(), zip(*judged, strict=True), strict=True):
            scores = task.compute_metrics([part for part in parts if part is not None])
            metrics |= {f"{name}_{metric}": value for metric, value in scores.items()}
            progress.append((scores[task.metric] - task.chance) / (task.best - task.chance))
        return {"progress": sum(progress) / len(progress), **metrics}


class _Part(nn.Module):
    """A network as one of its tasks sees it."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, batch: Batch) -> Tensor:
        answers: Tensor = self.network.forward_task(self.name, batch)  # type: ignore[operator]
        return answers


def _side_by_side(parts: Sequence[Batch | None]) -> Batch:
    first = next(part for part in parts if part is not None)
    return first._replace(parts=tuple(parts))


def _endless(task: Task, split: Split, batch_size: int, seed: int) -> Iterator[Batch]:
    """One pass after the other, each in an order of its own."""
    while True:
        yield from task.batches(split, batch_size, shuffle=seed)
        seed += 1_000_003
