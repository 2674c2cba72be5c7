"""A search simulated on a recorded table: the project's own code, with look-ups in place of training and measuring.

Time is virtual: the CPU-seconds of the epochs that were trained, and what the strategy itself took to decide.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from search.acquisition import BoxDecomposition
from search.evaluate import Search, evaluate, values
from search.lifecycle import QueueProposer, proposer_of, queue_next
from search.pareto import hypervolume, non_dominated
from search.pruning import Pruner
from search.replay.learner import TableLearner
from search.replay.store import ReplayStore
from search.replay.table import Table
from search.samplers.candidates import Pool
from search.samplers.seeded import seeded_sampler
from search.study.records import Direction, Record, State
from spaces.instantiate import instantiate
from spaces.space import Space

MAX_TRAININGS = 300  # a search ends after the CPU-seconds of so many trainings of mean length
MAX_DUPLICATES = 200  # trials in a row that are duplicates: then nothing is left to sample


@dataclass(frozen=True)
class Strategy:
    """A sampler and a pruner: the settings that a run would compose, as plain values.

    ``order`` is None, "cheapest" (all architectures by FLOPs) or "oracle" (the true front and nothing else);
    ``smallest`` starts with the smallest architecture of each mechanism, as a run does.
    """

    name: str
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    smallest: bool = True
    order: str | None = None


@dataclass
class Outcome:
    """The result of a simulation. ``trace`` holds (seconds, epochs, share of the true hypervolume) at each increase."""

    strategy: str
    table: str
    seed: int
    trace: list[tuple[float, int, float]] = field(default_factory=list)
    lost: int = 0  # members of the true front that were stopped for good
    own_s: float = 0.0  # the strategy's own CPU-seconds
    first_s: float = 0.0  # seconds of the shortest training of the table
    limit_s: float = math.inf  # after which the search was ended

    def reached(self, share: float, *, epochs: bool = False) -> float:
        """Seconds (or epochs) until ``share`` of the true hypervolume; infinite if never."""
        return next((entry[1] if epochs else entry[0] for entry in self.trace if entry[2] >= share), math.inf)

    def reached_or_limit(self, share: float) -> float:
        """Seconds until ``share`` of the true hypervolume, or until the search was ended."""
        return min(self.reached(share), self.limit_s)

    def anytime_regret(self) -> float:
        """Mean hypervolume regret over the logarithm of the seconds from ``first_s`` to ``limit_s``.

        That is also the mean over all shares, as targets, of the logarithm of the time to them, scaled to 0 to 1: the
        area over the distribution of run times (Hansen et al., "Anytime Performance Assessment in Blackbox Optimization
        Benchmarking", 2022). After the end of the search the regret stays what it is.
        """
        times = np.array([self.first_s, *(entry[0] for entry in self.trace), self.limit_s])
        regrets = 1.0 - np.array([0.0, *(entry[2] for entry in self.trace)])
        widths = np.diff(np.log(np.clip(times, self.first_s, self.limit_s)))
        return float(regrets @ widths / widths.sum())


class Replay:
    """One strategy on one table with one seed, which also picks the seed of training among those recorded."""

    def __init__(self, table: Table, strategy: Strategy, *, seed: int, workers: int = 1) -> None:
        self.table, self.strategy, self.seed, self.workers = table, strategy, seed, workers
        self.learner = TableLearner(table, world=seed % len(table.curves))
        self.objectives = table.objectives
        space = Space(table.space)
        pool = Pool(space, self.learner.counted, size=strategy.sampler.get("candidates", 1), limits={}, seed=seed)
        self.pruner = instantiate(Pruner, strategy.pruner, "pruner")
        sampler = seeded_sampler(strategy.sampler, seed=seed)
        self.search = Search(
            space=space,
            objectives=self.objectives,
            limits={},
            cost_model=self.learner,
            proposer=QueueProposer() if strategy.order else proposer_of(sampler.base, self.pruner, pool.unseen),
            pruner=self.pruner,
            learner=self.learner,
        )
        directions: list[Direction] = [self.objectives.direction]
        directions += ["minimize"] * len(self.objectives.costs)
        self.store = ReplayStore(optuna.create_study(directions=directions, sampler=sampler))
        points = table.points(self.learner.world)
        self.best = hypervolume(points, self.objectives.reference, self.objectives.ideal)
        trainings = table.end_seconds[:, -1]
        self.first_s, self.limit_s = float(trainings.min()), MAX_TRAININGS * float(trainings.mean())
        self.true_front = set(np.flatnonzero(non_dominated(points)).tolist())

    def run(self, until: float = 0.99) -> Outcome:
        """Simulate until ``until`` of the true hypervolume is reached, the time is up or nothing is left to do."""
        outcome = Outcome(self.strategy.name, self.table.name, self.seed, first_s=self.first_s, limit_s=self.limit_s)
        self.store.enqueue_first(self._first())
        idle = [(0.0, worker) for worker in range(self.workers)]
        running: list[tuple[float, int, _Running]] = []  # by the virtual time of their next step
        epochs = 0
        while idle or running:
            if idle and (not running or idle[0][0] <= running[0][0]):
                now, worker = heapq.heappop(idle)
                if now > self.limit_s:
                    break
                began = time.thread_time()
                trial = self._next()
                own = time.thread_time() - began
                outcome.own_s += own
                if trial is not None:
                    heapq.heappush(running, (now + own, worker, trial))
                elif running:
                    heapq.heappush(idle, (running[0][0] + 1e-9, worker))  # waits: that trial may be paused
                continue
            now, worker, trial = heapq.heappop(running)
            if now > self.limit_s:
                break
            began = time.thread_time()
            record = self._advance(trial)
            own = time.thread_time() - began
            outcome.own_s += own
            if record.state == State.RUNNING:  # it trains another epoch
                epochs += 1
                heapq.heappush(running, (now + own + self._epoch_s(record), worker, trial))
            else:
                heapq.heappush(idle, (now + own, worker))
                share = BoxDecomposition(self.store.history(self.objectives)).hypervolume / self.best
                if not outcome.trace or share > outcome.trace[-1][2]:
                    outcome.trace.append((now + own, epochs, share))
                    if share >= until:
                        break
        reached = bool(outcome.trace) and outcome.trace[-1][2] >= until
        if not (self.pruner.pauses and reached):  # otherwise what is paused could still be resumed
            stopped = (each for each in self.store.records() if each.state in (State.PRUNED, State.PAUSED))
            outcome.lost = len(self.true_front & {self.table.rows.get(each.key) for each in stopped})
        return outcome

    def _first(self) -> list[Mapping[str, Any]]:
        if self.strategy.order == "oracle":
            return [self.table.parameters[row] for row in sorted(self.true_front, key=self._flops)]
        if self.strategy.order == "cheapest":
            return [self.table.parameters[row] for row in sorted(range(len(self.table.costs)), key=self._flops)]
        return list(self.search.space.smallest()) if self.strategy.smallest else []

    def _flops(self, row: int) -> float:
        return self.table.costs[row]["flops"]

    def _next(self) -> _Running | None:
        """A trial that has begun and is no duplicate; None if nothing is left."""
        for _ in range(MAX_DUPLICATES):
            if not queue_next(self.store, self.search.proposer, self.objectives, may_start=True):
                return None
            trial = self.store.study.ask()
            steps = evaluate(trial, self.store, self.search)
            record = next(steps)
            if record.state == State.RUNNING:
                return _Running(trial, steps)
            self._tell(trial, record)
        return None

    def _advance(self, running: _Running) -> Record:
        """Let a trial take its next step."""
        record = next(running.steps)
        if record.state != State.RUNNING:
            self._tell(running.trial, record)
        return record

    def _epoch_s(self, record: Record) -> float:
        """CPU-seconds of a trial's next epoch."""
        ends, done = self.table.end_seconds[self.learner.row(record.key)], record.epochs
        return float(ends[done] - (ends[done - 1] if done else 0.0))

    def _tell(self, trial: Trial, record: Record) -> None:
        result = values(record, self.store, self.objectives)
        self.store.study.tell(trial, result, state=TrialState.PRUNED if result is None else TrialState.COMPLETE)


class _Running(NamedTuple):
    """A trial in progress."""

    trial: Trial
    steps: Iterator[Record]
