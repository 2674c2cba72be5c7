"""One trial from top to bottom: draw, recognise, cost, gate, train, stop or finish. Read this file first."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import optuna

from search.costs import count
from search.latency import Latency, Meter
from search.pruning import Pruner
from search.records import Objectives, Record
from search.study import records
from search.training import Settings, Training, judge
from spaces.architecture import Architecture, key, network_key
from spaces.build import build
from spaces.space import Space
from spaces.tasks import Task


class Watch(Protocol):
    """Whoever shows a trial's progress."""

    def drawn(self, number: int, architecture: Architecture) -> None:
        """A trial has begun."""

    def epoch(self, epoch: int, epochs: int, metric: float) -> None:
        """It was judged after an epoch."""


@dataclass(frozen=True)
class Search:
    """All that decides what becomes of an architecture; the same for every trial of a study."""

    space: Space
    task: Task
    pruner: Pruner
    meter: Meter
    objectives: Objectives
    limits: Mapping[str, float | None]
    seed: int


def measure(architecture: Architecture, task: Task, meter: Meter) -> tuple[dict[str, float], Latency]:
    """What an architecture costs, by name, untrained; and how its latency was measured."""
    network = build(architecture, task)
    latency = meter.measure(network, task)
    return {"latency_ms": latency.ms, **count(network, task)}, latency


def evaluate(trial: optuna.Trial, search: Search, watch: Watch) -> tuple[float, ...]:
    """The metric and the costs of one architecture, in the order of the study's directions.

    Raises:
        optuna.TrialPruned: it was not worth training to the end; the reason stands in the trial's attributes.
    """
    host = platform.node()
    notes = _Notes(trial, {"host": host})
    notes.write(worker=f"{host}:{os.getpid()}")
    architecture = search.space.suggest(trial)
    notes.write(architecture=json.dumps(architecture))
    watch.drawn(trial.number, architecture)

    twin = _twin(trial, architecture)
    if twin is not None:
        return _repeat(notes, twin, search.objectives)

    with notes.seconds("latency_s"):
        known = _same_network(trial, architecture, host)
        if known is None:
            costs, latency = measure(architecture, search.task, search.meter)
            notes.details["latency_spread"] = latency.spread
        else:
            costs, notes.details["latency_spread"] = dict(known.costs), known.details["latency_spread"]
    notes.write(costs=costs)
    limits = {name: limit for name, limit in search.limits.items() if limit is not None}
    for name, limit in limits.items():
        trial.set_constraint(name, costs[name] - limit)
    over = [
        f"{name} {costs[name]:.4g} is over the limit {limit:g}" for name, limit in limits.items() if costs[name] > limit
    ]
    if over:
        raise notes.stop("; ".join(over))

    metric = _train(notes, architecture, search, watch)
    notes.write(details=notes.details)
    return (metric, *(costs[name] for name in search.objectives.costs))


def _same_network(trial: optuna.Trial, architecture: Architecture, host: str) -> Record | None:
    """An earlier trial on this host with the same network, whatever its training settings.

    Measured again it would differ by the noise of measuring, and of two equal networks one would beat the other.
    """
    for other in records(trial.study):
        same = other.details.get("host") == host and network_key(other.architecture) == network_key(architecture)
        if same and other.number != trial.number and "latency_spread" in other.details:
            return other
    return None


def _train(notes: _Notes, architecture: Architecture, search: Search, watch: Watch) -> float:
    """Train to the end, or until the pruner says why not; the metric after the last epoch."""
    trial, task, settings = notes.trial, search.task, Settings(**architecture["train"])
    curve: list[tuple[int, float]] = []
    cpu_seconds = notes.details["cpu_seconds"] = []  # of training until each epoch
    if reason := _hopeless(trial, search):
        raise notes.stop(reason)
    network, reason = build(architecture, task, seed=search.seed), None
    with notes.seconds("training_s"):
        with Training(network, task, settings, seed=search.seed) as training:
            for epoch, metric in training:
                curve.append((epoch, metric))
                cpu_seconds.append(round(training.cpu_s, 4))
                notes.write(curve=curve)  # before the others' are read: of two that race, one sees the other
                watch.epoch(epoch, settings.epochs, metric)
                if reason := _hopeless(trial, search):
                    break
        if not reason:
            notes.details[f"test_{task.metric}"] = judge(network, task, "test")
    if reason:
        raise notes.stop(reason)
    return curve[-1][1]


def _hopeless(trial: optuna.Trial, search: Search) -> str | None:
    """Why the pruner would stop a trial now, by what the storage holds of it and the others."""
    everyone = records(trial.study)
    me = next(each for each in everyone if each.number == trial.number)
    return search.pruner.stops(me, everyone, search.objectives)


def _twin(trial: optuna.Trial, architecture: Architecture) -> Record | None:
    """The first other trial of the same architecture that has a result or is getting one."""
    for other in records(trial.study):
        if other.number < trial.number and other.state != "failed" and key(other.architecture) == key(architecture):
            return other
    return None


def _repeat(notes: _Notes, twin: Record, objectives: Objectives) -> tuple[float, ...]:
    """Give a twin's result again."""
    notes.details["twin_of"] = twin.number
    notes.write(costs=dict(twin.costs))
    same = f"the same architecture as trial {twin.number}"
    if twin.metric is None:
        raise notes.stop(f"{same}: {twin.reason or 'still running'}")
    notes.write(details=notes.details, reason=same)
    return (twin.metric, *(twin.costs[name] for name in objectives.costs))


@dataclass
class _Notes:
    """What is written down of a trial while it runs, in its study's storage."""

    trial: optuna.Trial
    details: dict[str, Any]

    def write(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            self.trial.set_user_attr(name, value)

    def stop(self, reason: str) -> optuna.TrialPruned:
        self.write(reason=reason, details=self.details)
        return optuna.TrialPruned(reason)

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the details."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.details[name] = self.details.get(name, 0.0) + time.perf_counter() - start
