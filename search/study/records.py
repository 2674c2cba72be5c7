"""Trials as plain values, the objectives that they are compared by, and the front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from search import pareto
from spaces.architecture import features, key, network_key, trained_key

if TYPE_CHECKING:
    from spaces.tasks import Task

Direction = Literal["maximize", "minimize"]


class State(StrEnum):
    """The state of a trial. Optuna itself has running, complete, pruned and failed trials."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"  # stopped for good
    PAUSED = "paused"  # stopped with a checkpoint: it may be resumed
    FAILED = "failed"
    DUPLICATE = "duplicate"  # its architecture is that of another trial
    OVER_QUOTA = "over_quota"  # started when the study already had n_trials trials
    REPLACED = "replaced"  # queued again, to be resumed or after its worker died


UNUSABLE = "unusable"  # the constraint that a trial without a usable result violates
COUNTED = frozenset(  # towards n_trials
    {State.RUNNING, State.COMPLETE, State.PRUNED, State.PAUSED, State.FAILED}
)


@dataclass(frozen=True)
class Stop:
    """Why a trial was stopped."""

    reason: str  # one line, shown to the user
    epoch: int  # the rung; 0 is before training
    threshold: float | None = None  # the metric that would have sufficed, where the rule has one
    beaten_by: Sequence[int] = ()  # numbers of the better trials that set it, the best first


@dataclass(frozen=True)
class Timing:
    """A latency, with the time and host of its measurement."""

    ms: float  # of one use of the network
    spread: float  # (slowest - fastest) / fastest over the rounds of the measurement
    host: str
    at: float  # seconds since 1970
    reference_ms: float = 0.0  # of a fixed computation timed alongside; 0 where latency is computed, not measured
    epoch_s: float = 0.0  # of training, computed like the latency, which decisions use instead of CPU-seconds; 0: none
    runtime: str = "eager"  # the fastest one, whose latency it is; see search.costs.runtimes
    runtimes_ms: Mapping[str, float] = field(default_factory=dict)  # by run-time, if there are several


@dataclass(frozen=True)
class Record:
    """One trial as plain values. ``curve`` holds ``(epoch, metric)`` in order of time, epochs counted from 1.

    A trial that was resumed from an earlier epoch after a crash may have an epoch twice; the later entry counts.
    """

    number: int
    state: State
    costs: Mapping[str, float] = field(default_factory=dict)  # by name; latency_ms is that of the current timing
    curve: Sequence[tuple[int, float]] = ()
    metric: float | None = None  # after the last epoch; None unless complete
    architecture: Mapping[str, Any] = field(default_factory=dict)
    timings: Sequence[Timing] = ()  # the first one and, if latency was measured again, the current one
    parameters: Mapping[str, Any] = field(default_factory=dict)  # as sampled, by name
    validation_metrics: Mapping[str, float] = field(default_factory=dict)  # of a complete trial, all that there are
    test_metrics: Mapping[str, float] = field(default_factory=dict)  # of a complete trial, on the test split
    stop: Stop | None = None  # of a trial that a rule stopped
    error: str = ""  # of a failed trial
    traceback: str = ""  # of a failed trial's exception
    cpu_seconds: Sequence[float] = ()  # of training, from its start to each epoch of the curve
    training_s: float = 0.0  # wall-clock seconds of training under this number
    latency_s: float = 0.0  # wall-clock seconds of measuring its latency
    resumed: bool = False  # whether it was paused by a rule and resumed
    overhead: float = 0.0  # share of the training's CPU time outside forward, backward and optimizer steps
    worker: str = ""  # host:pid
    weights: str = ""  # path, on the worker's host, of the file of the weights; it is removed off the front
    duplicate_of: int | None = None  # the trial with the same architecture
    ended_at: float | None = None  # seconds since 1970; None while it runs

    @cached_property
    def key(self) -> str:
        """Equal for equal architectures."""
        return key(self.architecture)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """See :func:`spaces.architecture.features`."""
        return features(self.architecture)

    @cached_property
    def network_key(self) -> str:
        """Equal for architectures that differ in training settings only, so have the same costs."""
        return network_key(self.architecture)

    @cached_property
    def trained_key(self) -> str:
        """Equal for architectures with the same trained weights, which differ in the quantization only."""
        return trained_key(self.architecture)

    @property
    def timing(self) -> Timing | None:
        """The current timing; None before it was measured."""
        return self.timings[-1] if self.timings else None

    @property
    def epochs(self) -> int:
        """The number of epochs trained."""
        return self.curve[-1][0] if self.curve else 0

    @property
    def last_metric(self) -> float | None:
        """The final metric, or that of the last epoch so far."""
        return self.metric if self.metric is not None else (self.curve[-1][1] if self.curve else None)

    @property
    def reason(self) -> str:
        """Why it was stopped or failed, or of which trial it is a duplicate; empty otherwise."""
        if self.duplicate_of is not None:
            return f"the same architecture as trial {self.duplicate_of}"
        return self.stop.reason if self.stop else self.error

    def metric_at(self, epoch: int) -> float | None:
        """The metric after ``epoch``, or None if the trial was not evaluated there."""
        curve = self.curve
        if curve and curve[-1][0] == len(curve):  # no epoch is repeated: index, as pruners call this for every trial
            return curve[epoch - 1][1] if 1 <= epoch <= len(curve) else None
        return next((metric for each, metric in reversed(curve) if each == epoch), None)


@dataclass(frozen=True)
class Objectives:
    """The metric and the costs that span the front.

    ``chance`` and ``best`` bound the metric; ``ceilings`` bound the costs, in the order of ``costs``, by those of the
    space's largest architectures. The bounds of a study never change, so its hypervolume is comparable over time.
    ``preferred`` are costs, by name, near which the search looks for more; the front and its hypervolume ignore them.
    """

    metric: str
    direction: Direction
    costs: tuple[str, ...]
    chance: float
    best: float
    ceilings: tuple[float, ...]
    preferred: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        task: Task,
        costs: Sequence[str],
        ceilings: Sequence[float],
        preferred: Mapping[str, float] = MappingProxyType({}),
    ) -> Self:
        """The metric of ``task`` against ``costs``."""
        bounds = (task.objective_chance, task.best, tuple(ceilings))
        return cls(task.metric, task.direction, tuple(costs), *bounds, preferred)

    def loss(self, metric: float) -> float:
        """The metric, negated if it is maximized, so that lower is better; NaN stays NaN."""
        return -metric if self.direction == "maximize" else metric

    def point(self, record: Record) -> tuple[float, ...] | None:
        """``(loss, *costs)`` of a complete trial with finite values, lower is better; None for others."""
        if record.state != State.COMPLETE or record.metric is None or not set(self.costs) <= set(record.costs):
            return None
        point = (self.loss(record.metric), *(record.costs[name] for name in self.costs))
        return point if all(map(math.isfinite, point)) else None

    def best_of(self, complete: Iterable[Record]) -> Record:
        """The complete trial with the best metric, of at least one; the first of equally good ones."""
        return min(complete, key=lambda record: self.loss(record.metric or 0.0))

    @property
    def reference(self) -> tuple[float, ...]:
        """The reference point: the chance metric at the ceilings; see :func:`search.pareto.hypervolume`."""
        return (self.loss(self.chance), *self.ceilings)

    def hypervolume(self, members: Sequence[Record]) -> float:
        """The share of the box between reference and ideal point that ``members`` dominate, 0 to 1."""
        points = [point for member in members if (point := self.point(member)) is not None]
        return pareto.hypervolume(points, self.reference, self.ideal) if points else 0.0

    @property
    def ideal(self) -> tuple[float, ...]:
        """The ideal point: the best metric at zero cost."""
        return (self.loss(self.best), *(0.0 for _ in self.costs))


def front(records: Sequence[Record], objectives: Objectives) -> list[Record]:
    """The non-dominated complete trials, by ascending cost."""
    complete = [(point, record) for record in records if (point := objectives.point(record)) is not None]
    if not complete:
        return []
    mask = pareto.non_dominated([point for point, _ in complete])
    members = [record for (_, record), is_member in zip(complete, mask, strict=True) if is_member]
    return sorted(members, key=lambda member: [member.costs[name] for name in objectives.costs])
