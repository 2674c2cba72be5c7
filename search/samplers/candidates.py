"""Candidates for the next trial: architectures drawn at random, not seen before, with costs counted but not timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from search.costs import excess_over_limits
from search.study.history import History
from spaces.architecture import Architecture, key
from spaces.space import Space

MAX_REJECTIONS = 500  # consecutive draws that are repeated or over a limit, after which the space is exhausted


@dataclass(frozen=True)
class Candidate:
    """An architecture without a trial; ``costs`` are parameters, flops and memory_mb."""

    parameters: Mapping[str, Any]
    architecture: Architecture
    costs: Mapping[str, float]


class Pool:
    """Up to ``size`` candidates, refilled as they are used.

    Args:
        space: they are drawn from.
        counted: the costs of an architecture that are known without measuring.
        size: of the pool.
        limits: upper bounds of costs; those of measured costs are ignored.
        seed: of the draws.
    """

    def __init__(
        self,
        space: Space,
        counted: Callable[[Architecture], dict[str, float]],
        *,
        size: int,
        limits: Mapping[str, float | None],
        seed: int,
    ) -> None:
        self._space, self._counted, self._size, self._limits = space, counted, size, limits
        self._study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        self._pool: dict[str, Candidate] = {}
        self._drawn: set[str] = set()
        self._rejections = 0

    def unseen(self, history: History) -> list[Candidate]:
        """The candidates that are not in ``history``; empty if the space is exhausted."""
        seen = {key(record.architecture) for record in history.records()}
        self._pool = {name: candidate for name, candidate in self._pool.items() if name not in seen}
        for name, candidate in self._draws(seen):
            self._pool[name] = candidate
            if len(self._pool) >= self._size:
                break
        return list(self._pool.values())

    def _draws(self, seen: set[str]) -> Iterator[tuple[str, Candidate]]:
        """New candidates, until ``MAX_REJECTIONS`` consecutive draws were drawn before or over a limit.

        Whether a draw is rejected does not depend on ``seen``, so that a run which is continued has the same pool.
        """
        while len(self._pool) < self._size and self._rejections < MAX_REJECTIONS:
            trial = self._study.ask()
            architecture = self._space.suggest(trial)
            name = key(architecture)
            self._rejections += 1
            if name in self._drawn:
                continue
            self._drawn.add(name)
            costs = self._counted(architecture)
            if any(value > 0 for value in excess_over_limits(costs, self._limits).values()):
                continue
            self._rejections = 0
            if name not in seen:
                yield name, Candidate(trial.params, architecture, costs)
