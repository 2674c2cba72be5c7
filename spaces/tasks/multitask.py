"""Multi-task learning: each task has its own embedding and head, and all share one trunk.

Caruana, "Multitask Learning", 1997. Every training step uses a batch of each task; latency is that of one example of
each. To average the metrics, each is normalized: 0 is the task's chance level, 1 is perfect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from spaces.seeds import repetition_seed
from spaces.tasks import Batch, Examples, Split, Task, TaskSpec


class Multitask(Task):
    """The mean over tasks of the normalized metric, ``(metric - chance) / (best - chance)``.

    Args:
        tasks: two or more by name; none causal, none sequence-to-sequence.
    """

    metric = "progress"
    chance = 0.0
    batch_size = 8  # of each task

    def __init__(self, *, tasks: Mapping[str, Task]) -> None:
        if len(tasks) < 2:
            raise ValueError(f"tasks: {', '.join(tasks) or 'none'}; it must be two or more")
        for name, task in tasks.items():
            if not isinstance(task, Task):
                raise ValueError(f"tasks.{name}: {task!r} is not a task")
            if task.spec.causal or task.spec.answer_length is not None or task.subtasks:
                kind = "causal" if task.spec.causal else "multi-task" if task.subtasks else "sequence-to-sequence"
                raise ValueError(f"tasks.{name}: it is {kind}, which a shared encoder does not support")
        self.subtasks = dict(tasks)
        spec = {name: task.spec for name, task in tasks.items()}
        length = max(each.length for each in spec.values())
        self.spec = TaskSpec(length=length, classes=0, per_token=False, subtasks=spec)

    def examples(self, split: Split) -> Batch:
        """All examples of every task."""
        return _combine([_all(task.data(split)) for task in self.subtasks.values()])

    def steps(self, split: Split, batch_size: int) -> int:
        """Number of batches of the largest task."""
        return max(task.steps(split, batch_size) for task in self.subtasks.values())

    def batches(self, split: Split, batch_size: int, *, shuffle: int | None = None) -> Iterator[Batch]:
        """One batch of each task; smaller tasks are repeated if shuffled, otherwise their batches become None."""
        columns: Iterator[Sequence[Batch | None]]
        if shuffle is None:
            columns = zip_longest(*(task.batches(split, batch_size) for task in self.subtasks.values()))
        else:
            endless = (_repeat(task, split, batch_size, shuffle) for task in self.subtasks.values())
            columns = islice(zip(*endless, strict=True), self.steps(split, batch_size))
        yield from map(_combine, columns)

    def sample(self, batch: int = 1, length: int | None = None) -> Batch:
        """``batch`` examples of each task, at its own sequence length or at ``length`` if that is shorter."""
        if length is not None and not 1 <= length <= self.spec.length:
            raise ValueError(f"length={length}: the task has sequence lengths from 1 to {self.spec.length}")
        longest = self.spec.length if length is None else length
        return _combine([task.sample(batch, min(longest, task.spec.length)) for task in self.subtasks.values()])

    def loss(self, logits: Any, batch: Batch) -> Tensor:
        """The mean of the tasks' losses; ``logits`` is one tensor per task."""
        losses = [
            task.loss(task_logits, task_batch)
            for task, task_logits, task_batch in zip(self.subtasks.values(), logits, batch.subtasks, strict=True)
            if task_batch is not None
        ]
        return torch.stack(losses).mean()

    def eval_step(self, network: nn.Module, batch: Batch) -> list[Any]:
        """The statistics of each task; None for a task without examples in this batch."""
        return [
            None if task_batch is None else task.eval_step(SubtaskNetwork(network, name), task_batch)
            for (name, task), task_batch in zip(self.subtasks.items(), batch.subtasks, strict=True)
        ]

    def compute_objective(self, outputs: Sequence[list[Any]]) -> float:
        """The mean of the normalized metrics; NaN without an example of some task, as in the last batches."""
        progress = []
        for task, column in self._columns(outputs):
            if not column:
                return math.nan
            chance = task.objective_chance
            progress.append((task.compute_objective(column) - chance) / (task.best - chance))
        return sum(progress) / len(progress)

    def compute_metrics(self, outputs: Sequence[list[Any]]) -> dict[str, float]:
        """The mean of the normalized metrics, and all metrics of each task, prefixed with its name."""
        metrics = {"progress": self.compute_objective(outputs)}
        for name, (task, column) in zip(self.subtasks, self._columns(outputs), strict=True):
            metrics |= {f"{name}_{metric}": value for metric, value in task.compute_metrics(column).items()}
        return metrics

    def _columns(self, outputs: Sequence[list[Any]]) -> Iterator[tuple[Task, list[Any]]]:
        """Each task with its results."""
        for task, column in zip(self.subtasks.values(), zip(*outputs, strict=True), strict=True):
            yield task, [output for output in column if output is not None]


class SubtaskNetwork(nn.Module):
    """The shared network restricted to one task."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, batch: Batch) -> Tensor:
        """The logits of the task."""
        logits: Tensor = self.network.forward_task(self.name, batch)  # type: ignore[operator]
        return logits


def _all(examples: Examples) -> Batch:
    return examples if isinstance(examples, Batch) else examples.select(torch.arange(examples.size))


def _combine(batches: Sequence[Batch | None]) -> Batch:
    first = next(batch for batch in batches if batch is not None)
    return first._replace(subtasks=tuple(batches))


def _repeat(task: Task, split: Split, batch_size: int, seed: int) -> Iterator[Batch]:
    """Epoch after epoch, each in its own order."""
    for repetition in count():
        yield from task.batches(split, batch_size, shuffle=repetition_seed(seed, repetition))
