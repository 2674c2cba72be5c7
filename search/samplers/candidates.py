"""Candidates for the next trial: architectures not seen before, with costs counted but not timed.

Half of them are drawn at random; the others change one setting of a trial on the front, because in a large space random
draws hardly come near it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np

from search.costs import excess_over_limits
from search.study.history import History
from search.study.records import front
from spaces.architecture import Architecture, features, key
from spaces.dimensions import Trial, Value

MAX_REJECTIONS = 500  # consecutive draws that are repeated or over a limit, after which the space is exhausted
MAX_POOL = 16  # draws that are candidates, in units of the pool's size
MIN_DRAWS = 4096  # candidates that are drawn in a period at least, so that all of a small space are


@dataclass(frozen=True)
class Candidate:
    """An architecture without a trial; ``counted`` returns its parameters, flops and memory_mb."""

    parameters: Mapping[str, Any]
    architecture: Architecture
    counted: Callable[[Architecture], Mapping[str, float]]

    @cached_property
    def costs(self) -> Mapping[str, float]:
        """What ``counted`` returns: counted at first use, as the first trials are chosen without it."""
        return self.counted(self.architecture)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """See :func:`spaces.architecture.features`."""
        return features(self.architecture)


@dataclass
class Draw:
    """A :class:`spaces.dimensions.Trial` that samples at random; ``fixed`` parameters keep their values."""

    random: np.random.Generator
    fixed: Mapping[str, Value] = field(default_factory=dict)
    parameters: dict[str, Value] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of ``choices``."""
        return self._note(name, choices[int(self.random.integers(len(choices)))])

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """An integer from ``low`` to ``high``."""
        if log:
            value = round(math.exp(self.random.uniform(math.log(low - 0.5), math.log(high + 0.5))))
            return int(self._note(name, min(max(value, low), high)))  # type: ignore[arg-type]
        return int(self._note(name, low + step * int(self.random.integers((high - low) // step + 1))))  # type: ignore[arg-type]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A number from ``low`` to ``high``."""
        if step is not None:
            steps = round((high - low) / step)
            value = min(low + step * int(self.random.integers(steps + 1)), high)
        elif log:
            value = min(max(math.exp(self.random.uniform(math.log(low), math.log(high))), low), high)
        else:
            value = self.random.uniform(low, high)
        return float(self._note(name, float(value)))  # type: ignore[arg-type]

    def _note(self, name: str, value: Value) -> Value:
        self.parameters[name] = self.fixed.get(name, value)
        return self.parameters[name]


class Source(Protocol):
    """What candidates are drawn from, such as a :class:`spaces.space.Space`."""

    def suggest(self, trial: Trial) -> Architecture:
        """Sample an architecture."""


class Pool:
    """``size`` random candidates and ``size`` neighbours of the front, drawn anew for each step of a study.

    Of what was drawn at random in earlier steps, the latest ``MAX_POOL * size`` are candidates too. Steps are divided
    into periods; those of the current and of the previous one alone count, so that neither memory nor the start of a
    worker grows with the study.

    Args:
        space: they are drawn from.
        counted: the costs of an architecture that are known without measuring; None if it cannot be trained.
        trainable: whether all can be trained. Costs are then counted when a candidate's are needed, unless one of them
            is limited: counting networks that generate takes long, and the first trials are chosen without costs.
        size: of a draw.
        limits: upper bounds of costs; those of measured costs are ignored.
        seed: of the draws.
    """

    def __init__(
        self,
        space: Source,
        counted: Callable[[Architecture], Mapping[str, float] | None],
        *,
        size: int,
        limits: Mapping[str, float | None],
        seed: int,
        trainable: bool = False,
    ) -> None:
        self._counts_at_once = not trainable or any(limit is not None for limit in limits.values())
        self._space, self._counted, self._size, self._limits, self._seed = space, counted, size, limits, seed
        self._period = max(math.ceil(MIN_DRAWS / size), 4 * MAX_POOL)  # steps
        self._begin(0)

    def _begin(self, step: int) -> None:
        """Forget what was drawn before ``step``."""
        self._first = self._next = step
        self._pool: dict[str, Candidate] = {}
        self._drawn: set[int] = set()  # the hashes of their keys, which are long, and of those that are no candidates
        self._rejections = 0

    def unseen(self, history: History) -> list[Candidate]:
        """The candidates that are not in ``history``; empty if the space is exhausted.

        They depend on the history alone, so that a run which is continued has the same ones.
        """
        records = history.records()
        seen = {record.key for record in records}
        first = max(0, len(records) // self._period - 1) * self._period
        if first != self._first:
            self._begin(first)
        while self._next <= len(records):
            self._pool.update(self._draws(np.random.default_rng([self._seed, self._next])))
            self._next += 1
        left = [(name, candidate) for name, candidate in self._pool.items() if name not in seen]
        near = self._neighbours(history, np.random.default_rng([self._seed, len(records), 1]))
        near = {name: candidate for name, candidate in near.items() if name not in seen}
        return list((dict(left[-MAX_POOL * self._size :]) | near).values())

    def _draws(self, random: np.random.Generator) -> Iterator[tuple[str, Candidate]]:
        """``size`` new candidates, or until ``MAX_REJECTIONS`` consecutive draws are rejected."""
        count = 0
        while count < self._size and self._rejections < MAX_REJECTIONS:
            name, candidate = self._draw(Draw(random))
            self._rejections += 1
            if hash(name) not in self._drawn:
                self._drawn.add(hash(name))
                if candidate is not None:
                    self._rejections = 0
                    count += 1
                    yield name, candidate

    def _neighbours(self, history: History, random: np.random.Generator) -> dict[str, Candidate]:
        """Members of the front with one parameter drawn again, and those that depend on it."""
        found = {}
        members = front(history.records(), history.objectives)
        for _ in range(self._size if members else 0):
            member = members[int(random.integers(len(members)))]
            if fixed := dict(member.parameters):
                del fixed[sorted(fixed)[int(random.integers(len(fixed)))]]
                name, candidate = self._draw(Draw(random, fixed))
                if candidate is not None:
                    found[name] = candidate
        return found

    def _draw(self, trial: Draw) -> tuple[str, Candidate | None]:
        """An architecture's key, and the candidate unless it is over a limit or cannot be trained."""
        architecture = self._space.suggest(trial)
        if not self._counts_at_once:
            counted = cast(Callable[[Architecture], Mapping[str, float]], self._counted)
            return key(architecture), Candidate(trial.parameters, architecture, counted)
        costs = self._counted(architecture)
        if costs is None or any(value > 0 for value in excess_over_limits(costs, self._limits).values()):
            return key(architecture), None
        return key(architecture), Candidate(trial.parameters, architecture, lambda _: costs)
