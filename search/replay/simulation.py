"""A search played over a recorded table: the project's own decisions, with looking up in the place of training.

Time is virtual: the CPU-seconds of the epochs that were trained, and what the strategy itself took to decide.
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from search.acquisition import BoxDecomposition
from search.lifecycle import plan
from search.pareto import non_dominated
from search.pruning import Pruner
from search.replay.table import Table
from search.samplers.candidates import Candidate
from search.samplers.seeded import SeededPerTrial
from search.study.history import History
from search.study.records import Record
from spaces.architecture import key
from spaces.build import instantiate
from spaces.space import Space

LOOKED_AT = 64  # unseen architectures, as in conf/sampler/surrogate.yaml
MOST_REPEATS = 200  # draws in a row of what was drawn before


@dataclass(frozen=True)
class Strategy:
    """Who draws and who stops: the settings that a run would compose, as plain values.

    ``order`` is None, "cheapest" (all architectures by arithmetic) or "oracle" (the true front and nothing else);
    ``smallest`` begins with each mechanism at its smallest, as a run does.
    """

    name: str
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    smallest: bool = True
    order: str | None = None


@dataclass
class Outcome:
    """What a replay came to. ``trace`` holds (seconds, epochs, share of the true hypervolume) whenever that grew."""

    strategy: str
    table: str
    seed: int
    trace: list[tuple[float, int, float]] = field(default_factory=list)
    lost: int = 0  # members of the true front that were stopped for good
    own_s: float = 0.0  # the strategy's own CPU-seconds

    def reached(self, share: float, *, epochs: bool = False) -> float:
        """Seconds (or epochs) until ``share`` of the true hypervolume; infinite if never."""
        return next((entry[1] if epochs else entry[0] for entry in self.trace if entry[2] >= share), math.inf)


class Replay:
    """One strategy on one table with one seed; the world is the seed's remainder."""

    def __init__(self, table: Table, strategy: Strategy, *, seed: int, workers: int = 1) -> None:
        self.table, self.strategy, self.seed, self.workers = table, strategy, seed, workers
        self.world = seed % len(table.curves)
        self.aims = table.objectives()
        self.space = Space(table.space)
        self.rows = {key(architecture): row for row, architecture in enumerate(table.architectures)}
        columns = (table.parameters, map(dict, table.architectures), table.costs)
        every = (Candidate(*each) for each in zip(*columns, strict=True))
        self.candidates = dict(zip(self.rows, every, strict=True))
        self.random = np.random.default_rng(seed)
        self.pruner: Pruner = instantiate(strategy.pruner, "pruner")
        self.sampler: BaseSampler = instantiate(strategy.sampler, "sampler", seed=seed)
        self.history = History(self.aims)
        self.seen: dict[str, int] = {}  # architectures that were begun, and the last trial of each
        self.repeated = False
        everything = [self._record(row, row, row_epochs=None) for row in range(len(self.rows))]
        complete = History.of(everything, self.aims)
        self.best = BoxDecomposition(complete).hypervolume
        points = np.column_stack([complete.finals, complete.costs])
        self.true_front = set(np.flatnonzero(non_dominated(points)).tolist())

    def _record(self, number: int, row: int, *, row_epochs: int | None, state: str = "complete", **more: Any) -> Record:
        curve = self.table.curves[self.world][row]
        epochs = len(curve) if row_epochs is None else row_epochs
        seconds = self.table.seconds[row]
        return Record(
            number,
            state,  # type: ignore[arg-type]
            self.table.costs[row],
            list(enumerate(curve[:epochs], start=1)),
            metric=curve[-1] if state == "complete" else None,
            architecture=self.table.architectures[row],
            details={"cpu_seconds": [seconds * (epoch + 1) for epoch in range(epochs)]},
            **more,
        )

    def run(self, until: float = 0.99) -> Outcome:
        """Play until ``until`` of the true hypervolume is reached or nothing is left to do."""
        outcome = Outcome(self.strategy.name, self.table.name, self.seed)
        study = optuna.create_study(
            directions=[self.aims.direction, "minimize"],
            sampler=SeededPerTrial(
                lambda seed: instantiate(self.strategy.sampler, "sampler", seed=seed), seed=self.seed
            ),
        )
        for parameters in self._beginnings():
            study.enqueue_trial(dict(parameters))
        idle = [(0.0, worker) for worker in range(self.workers)]
        running: list[tuple[float, int, Iterator[float]]] = []
        epochs = 0
        while idle or running:
            if idle and (not running or idle[0][0] <= running[0][0]):
                now, worker = heapq.heappop(idle)
                began = time.thread_time()
                trial = self._next(study)
                own = time.thread_time() - began
                outcome.own_s += own
                if trial is not None:
                    heapq.heappush(running, (now + own, worker, trial))
                elif running:
                    heapq.heappush(idle, (running[0][0] + 1e-9, worker))  # waits: something may be paused until then
                continue
            now, worker, trial = heapq.heappop(running)
            began = time.thread_time()
            seconds = next(trial, None)
            own = time.thread_time() - began
            outcome.own_s += own
            if seconds is None:
                heapq.heappush(idle, (now + own, worker))
                share = BoxDecomposition(self.history).hypervolume / self.best
                if not outcome.trace or share > outcome.trace[-1][2]:
                    outcome.trace.append((now + own, epochs, share))
                    if share >= until:
                        break
            else:
                epochs += 1
                heapq.heappush(running, (now + own + seconds, worker, trial))
        reached = bool(outcome.trace) and outcome.trace[-1][2] >= until
        if not (self.pruner.pauses and reached):  # what is paused could still go on
            stopped = (record for record in self.history.records() if record.state == "pruned")
            outcome.lost = len(self.true_front & {self.rows[key(record.architecture)] for record in stopped})
        return outcome

    def _beginnings(self) -> list[Mapping[str, Any]]:
        if self.strategy.order == "oracle":
            return [self.table.parameters[row] for row in sorted(self.true_front, key=self._flops)]
        if self.strategy.order == "cheapest":
            return [self.table.parameters[row] for row in sorted(range(len(self.rows)), key=self._flops)]
        return list(self.space.smallest()) if self.strategy.smallest else []

    def _flops(self, row: int) -> float:
        return self.table.costs[row]["flops"]

    def _unseen(self) -> list[Candidate]:
        left = [candidate for name, candidate in self.candidates.items() if name not in self.seen]
        return [left[at] for at in self.random.permutation(len(left))[:LOOKED_AT]]

    def _next(self, study: optuna.Study) -> Iterator[float] | None:
        """The trial that comes next, as an iterator over the seconds of its epochs; None if nothing is left."""
        for _ in range(MOST_REPEATS):
            replaces = None
            if not study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING]):
                if self.strategy.order is not None:
                    return None
                choice = plan(
                    self.sampler, self.pruner, self.history, self._unseen, enough=False, repeated=self.repeated
                )
                if choice is None:
                    return None
                if isinstance(choice, int):
                    replaces = choice
                    row = self.rows[key(self.history.record(choice).architecture)]
                    study.enqueue_trial(dict(self.table.parameters[row]))
                elif isinstance(choice, Candidate):
                    study.enqueue_trial(dict(choice.parameters))
            trial = study.ask()
            architecture = json.loads(json.dumps(self.space.suggest(trial)))
            name = key(architecture)
            self.repeated = replaces is None and name in self.seen
            if self.repeated:
                self._tell_again(study, trial, self.seen[name])
                continue
            self.seen[name] = trial.number
            return self._epochs(study, trial, self.rows[name], replaces)
        return None

    def _tell_again(self, study: optuna.Study, trial: optuna.Trial, number: int) -> None:
        twin = self.history.record(number)
        if twin.metric is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, [twin.metric, *(twin.costs[name] for name in self.aims.costs)])

    def _epochs(self, study: optuna.Study, trial: optuna.Trial, row: int, replaces: int | None) -> Iterator[float]:
        """Train: before each epoch its seconds, then what the pruner makes of it."""
        done = 0 if replaces is None else len(self.history.record(replaces).curve)
        total = len(self.table.curves[self.world][row])
        for epochs in range(done, total + 1):
            if epochs > done:
                yield self.table.seconds[row]
            record = self._record(trial.number, row, row_epochs=epochs, state="running", replaces=replaces)
            self.history.add(record)
            judged = epochs < total and (replaces is None or epochs > done)
            if judged and self.pruner.should_stop(record, self.history):
                stopped = self._record(trial.number, row, row_epochs=epochs, state="pruned", replaces=replaces)
                self.history.add(stopped)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return
        record = self._record(trial.number, row, row_epochs=None, replaces=replaces)
        self.history.add(record)
        assert record.metric is not None
        study.tell(trial, [record.metric, *(record.costs[name] for name in self.aims.costs)])
