"""Trials as plain values, and the objectives they are compared by; everything else is a function of these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

from search import pareto

if TYPE_CHECKING:
    from spaces.tasks import Task

Direction = Literal["maximize", "minimize"]


class State(StrEnum):
    """What became of a trial. Optuna itself knows running, complete, pruned and failed trials."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"  # stopped for good
    PAUSED = "paused"  # stopped with a checkpoint: it may be resumed
    FAILED = "failed"
    DUPLICATE = "duplicate"  # of an architecture that another trial has or is training
    OVER_QUOTA = "over_quota"  # started when the study had all its trials already
    REPLACED = "replaced"  # resumed, or requeued after its worker died, as a trial of another number


COUNTED = frozenset({State.RUNNING, State.COMPLETE, State.PRUNED, State.PAUSED, State.FAILED})  # towards n_trials


@dataclass(frozen=True)
class Stop:
    """Why a trial was stopped."""

    reason: str  # one line for people
    epoch: int  # the rung; 0 is before training
    threshold: float | None = None  # the metric that would have sufficed, where the rule has one
    beaten_by: Sequence[int] = ()  # numbers of the trials that set it, the best first


@dataclass(frozen=True)
class Timing:
    """A measured latency, and when and where it was taken."""

    ms: float  # of one use of the network
    spread: float  # (slowest - fastest) / fastest over the rounds of the measurement
    host: str
    at: float  # seconds since 1970
    reference_ms: float = 0.0  # of a fixed computation timed alongside; 0 where latency is not measured


@dataclass(frozen=True)
class Record:
    """One trial as plain values. ``curve`` holds ``(epoch, metric)`` in order of time, epochs counted from 1.

    Each epoch follows the one before, except where a crashed trial went on from an earlier one: then an epoch may
    stand here twice, and the later entry counts.
    """

    number: int
    state: State
    costs: Mapping[str, float] = field(default_factory=dict)  # by name; latency_ms is that of the current timing
    curve: Sequence[tuple[int, float]] = ()
    metric: float | None = None  # after the last epoch, of a complete trial only
    architecture: Mapping[str, Any] = field(default_factory=dict)
    timings: Sequence[Timing] = ()  # the first one and, if latency was measured again, the current one
    test_metrics: Mapping[str, float] = field(default_factory=dict)  # of a complete trial, on the test split
    stop: Stop | None = None  # of a trial that a rule stopped
    error: str = ""  # of a failed trial
    cpu_seconds: Sequence[float] = ()  # of training, from its start to each epoch of the curve
    training_s: float = 0.0  # wall-clock seconds of training under this number
    latency_s: float = 0.0  # wall-clock seconds of measuring its latency
    overhead: float = 0.0  # share of the training's CPU time outside forward, backward and optimizer steps
    worker: str = ""  # host:pid
    replaces: int | None = None  # the trial that was resumed, or requeued after its worker died, as this one
    duplicate_of: int | None = None  # the trial with the same architecture

    @property
    def timing(self) -> Timing | None:
        """The current timing; None before it was measured."""
        return self.timings[-1] if self.timings else None

    @property
    def epochs(self) -> int:
        """How many epochs it was trained."""
        return self.curve[-1][0] if self.curve else 0

    @property
    def last_metric(self) -> float | None:
        """The final metric, or else that after the last epoch so far."""
        return self.metric if self.metric is not None else (self.curve[-1][1] if self.curve else None)

    @property
    def reason(self) -> str:
        """Why it was stopped or failed, or whose duplicate it is; empty for others."""
        if self.duplicate_of is not None:
            return f"the same architecture as trial {self.duplicate_of}"
        return self.stop.reason if self.stop else self.error

    def metric_at(self, epoch: int) -> float | None:
        """The metric after ``epoch``, or None if the trial has not been judged there."""
        curve = self.curve
        if curve and curve[-1][0] == len(curve):  # it never went back: no search, pruners ask this of every trial
            return curve[epoch - 1][1] if 1 <= epoch <= len(curve) else None
        return next((metric for at, metric in reversed(curve) if at == epoch), None)


@dataclass(frozen=True)
class Objectives:
    """The metric and the costs that span the front.

    ``chance`` and ``best`` bound the metric; ``ceilings`` bound the costs, in the order of ``costs``: those of the
    space's most expensive corner. Both are fixed for a study's life, so that its hypervolume can only grow.
    """

    metric: str
    direction: Direction
    costs: tuple[str, ...]
    chance: float
    best: float
    ceilings: tuple[float, ...]

    @classmethod
    def of(cls, task: Task, costs: Sequence[str], ceilings: Sequence[float]) -> Self:
        """Those of a study: its task's metric against ``costs``."""
        return cls(task.metric, task.direction, tuple(costs), task.chance, task.best, tuple(ceilings))

    def loss(self, metric: float) -> float:
        """The metric turned so that less is better, NaN staying NaN."""
        return -metric if self.direction == "maximize" else metric

    def point(self, record: Record) -> tuple[float, ...] | None:
        """``(loss, *costs)`` of a complete trial, less is better; None if it is not complete, known and finite."""
        if record.state != State.COMPLETE or record.metric is None or not set(self.costs) <= set(record.costs):
            return None
        point = (self.loss(record.metric), *(record.costs[name] for name in self.costs))
        return point if all(map(math.isfinite, point)) else None

    @property
    def reference(self) -> tuple[float, ...]:
        """The worst point worth counting: chance at the ceilings; see :func:`search.pareto.hypervolume`."""
        return (self.loss(self.chance), *self.ceilings)

    def hypervolume(self, members: Sequence[Record]) -> float:
        """The share of the box between reference and ideal that ``members`` dominate: 0 to 1, more is better."""
        points = [point for member in members if (point := self.point(member)) is not None]
        return pareto.hypervolume(points, self.reference, self.ideal) if points else 0.0

    @property
    def ideal(self) -> tuple[float, ...]:
        """The point nothing can beat: a perfect metric at no cost."""
        return (self.loss(self.best), *(0.0 for _ in self.costs))


def front(records: Sequence[Record], objectives: Objectives) -> list[Record]:
    """The complete trials that no other one dominates, by ascending cost."""
    judged = [(point, record) for record in records if (point := objectives.point(record)) is not None]
    if not judged:
        return []
    mask = pareto.non_dominated([point for point, _ in judged])
    members = [record for (_, record), is_member in zip(judged, mask, strict=True) if is_member]
    return sorted(members, key=lambda member: [member.costs[name] for name in objectives.costs])
