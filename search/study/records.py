"""What the search knows of a trial, and what it judges trials by: plain values everything else is a function of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from search import pareto

if TYPE_CHECKING:
    from spaces.tasks import Task

State = Literal["running", "complete", "pruned", "failed"]
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Stop:
    """Why a trial was stopped."""

    reason: str  # one line for people
    epoch: int  # the rung; 0 is before training
    threshold: float | None = None  # the metric that would have sufficed, where the rule has one
    beaten_by: Sequence[int] = ()  # the trials that set it, the best first


@dataclass(frozen=True)
class Record:
    """One trial. ``curve`` holds ``(epoch, metric)`` in order of time, epochs counted from 1.

    Each epoch follows the one before, except where a crashed trial went on from an earlier one: then an epoch may
    stand here twice, and the later entry counts.
    """

    number: int
    state: State
    costs: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[tuple[int, float]] = ()
    metric: float | None = None  # the final one, of a complete trial only
    architecture: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""  # why it was stopped or failed, for people
    details: Mapping[str, Any] = field(default_factory=dict)  # seconds, spread of the latency, ...
    stop: Stop | None = None  # of a trial that a rule stopped
    replaces: int | None = None  # the trial whose worker died, or that was stopped and went on as this one

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
        if record.state != "complete" or record.metric is None or not set(self.costs) <= set(record.costs):
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
    """The complete trials that no other one dominates, the cheapest first."""
    judged = [(point, record) for record in records if (point := objectives.point(record)) is not None]
    judged = [(point, record) for point, record in judged if "twin_of" not in record.details]  # of older studies
    if not judged:
        return []
    on_front = pareto.non_dominated([point for point, _ in judged])
    members = [record for (_, record), is_in in zip(judged, on_front, strict=True) if is_in]
    return sorted(members, key=lambda member: [member.costs[name] for name in objectives.costs])
