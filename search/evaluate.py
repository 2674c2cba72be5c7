"""One trial from top to bottom: draw, recognise, cost, gate, train, stop or finish. Read this file first."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler

from search.costs.counted import count
from search.costs.latency import Latency, Meter
from search.pruning import Pruner
from search.samplers.candidates import Pool
from search.study.records import Objectives, Record, Stop
from search.study.trials import history, record, records
from search.training.fit import Training, evaluate_split
from search.training.settings import TrainSettings
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
    checkpoints: Path  # the folder in which stopped trials wait
    sampler: BaseSampler  # asked what comes next, if it is one that chooses
    pool: Pool


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
    resumes: int | None = trial.user_attrs.get("resumes")
    paused = None if resumes is None else record(trial.study.get_trials(deepcopy=False)[resumes])
    if paused is None:
        with notes.seconds("latency_s"):
            costs = _costs(notes, architecture, search)
    else:
        costs = dict(paused.costs)
        notes.details["latency_spread"] = paused.details["latency_spread"]
    notes.write(costs=costs)
    limits = {name: limit for name, limit in search.limits.items() if limit is not None}
    for name, limit in limits.items():
        trial.set_constraint(name, costs[name] - limit)
    over = [
        f"{name} {costs[name]:.4g} is over the limit {limit:g}" for name, limit in limits.items() if costs[name] > limit
    ]
    if over:
        raise notes.stop(Stop("; ".join(over), epoch=0))

    metric = _train(notes, architecture, search, watch, paused)
    notes.write(details=notes.details)
    return (metric, *(costs[name] for name in search.objectives.costs))


def _costs(notes: _Notes, architecture: Architecture, search: Search) -> dict[str, float]:
    """What an architecture costs: measured, or known from an earlier trial on this host with the same network.

    Measured again it would differ by the noise of measuring, and of two equal networks one would beat the other.
    """
    for other in records(notes.trial.study):
        same = network_key(other.architecture) == network_key(architecture)
        if same and other.details.get("host") == notes.details["host"] and "latency_spread" in other.details:
            notes.details["latency_spread"] = other.details["latency_spread"]
            return dict(other.costs)
    costs, latency = measure(architecture, search.task, search.meter)
    notes.details["latency_spread"] = latency.spread
    return costs


def _train(notes: _Notes, architecture: Architecture, search: Search, watch: Watch, paused: Record | None) -> float:
    """Train to the end, or until the pruner says why not; the metric after the last epoch.

    A stopped trial leaves a checkpoint, from which a later one may go on.
    """
    trial, task, settings = notes.trial, search.task, TrainSettings(**architecture["train"])
    folder = search.checkpoints / trial.study.study_name
    checkpoint = None if paused is None else folder / f"{paused.number}.pt"
    if paused is None or checkpoint is None or not checkpoint.exists():  # lost, or on another host: from the start
        paused = checkpoint = None
    curve = [] if paused is None else list(paused.curve)
    cpu_seconds: list[float] = [] if paused is None else list(paused.details["cpu_seconds"])
    before = cpu_seconds[-1] if cpu_seconds else 0.0
    notes.details["cpu_seconds"] = cpu_seconds  # of training until each epoch
    notes.write(curve=curve)
    if stop := None if paused else _hopeless(trial, search):
        raise notes.stop(stop)
    network = build(architecture, task, seed=search.seed)
    with (
        notes.seconds("training_s"),
        Training(network, task, settings, seed=search.seed, checkpoint=checkpoint) as training,
    ):
        for epoch, metric in training:
            curve.append((epoch, metric))
            cpu_seconds.append(round(before + training.cpu_s, 4))
            notes.write(curve=curve)  # before the others' are read: of two that race, one sees the other
            watch.epoch(epoch, settings.epochs, metric)
            notes.details["outside_model"] = 1 - training.model_s / training.cpu_s  # share of the processor's time
            if epoch == settings.epochs:
                break  # it has its result: stopping it now would only throw that away
            if stop := _hopeless(trial, search):
                if search.pruner.pauses and math.isfinite(metric):
                    training.save(folder / f"{trial.number}.pt")
                break
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    if stop:
        raise notes.stop(stop)
    notes.details |= {f"test_{name}": value for name, value in evaluate_split(network, task, "test").items()}
    return curve[-1][1]


def _hopeless(trial: optuna.Trial, search: Search) -> Stop | None:
    """Why the pruner would stop a trial now, by what the storage holds of it and the others."""
    known = history(trial.study, search.objectives)
    return search.pruner.should_stop(known.record(trial.number), known)


def _twin(trial: optuna.Trial, architecture: Architecture) -> Record | None:
    """The first other trial of the same architecture that has a result or is getting one."""
    for other in records(trial.study):
        if other.number < trial.number and other.state != "failed" and key(other.architecture) == key(architecture):
            return other
    return None


def _repeat(notes: _Notes, twin: Record, objectives: Objectives) -> tuple[float, ...]:
    """Give a twin's result again, to the sampler; the trial counts for nothing."""
    notes.write(surplus=True, costs=dict(twin.costs))
    same = f"the same architecture as trial {twin.number}"
    if twin.metric is None:
        raise notes.stop(Stop(f"{same}: {twin.reason or 'still running'}", epoch=0))
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

    def stop(self, stop: Stop) -> optuna.TrialPruned:
        self.write(reason=stop.reason, stop=asdict(stop), details=self.details)
        return optuna.TrialPruned(stop.reason)

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the details."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.details[name] = self.details.get(name, 0.0) + time.perf_counter() - start
