"""The surrogate in any Optuna study with :class:`~search.pruning.optuna_study.MultiObjectivePruning`.

Candidates are drawn from Optuna's own distributions. They are those of the parameters that every complete trial has, as
in Optuna's ``GPSampler`` and multivariate ``TPESampler``; other parameters, and those of the first trials, are drawn at
random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial

from search.pruning.optuna_study import MultiObjectivePruning, described
from search.samplers.candidates import Pool
from search.samplers.surrogate import SurrogateSampler
from spaces.architecture import Architecture
from spaces.dimensions import Trial

Distributions = Mapping[str, BaseDistribution]
KnownCosts = Callable[[Mapping[str, Any]], Mapping[str, float]]


class StudySampler(RandomSampler):
    """Chooses the next trial of a study as :class:`~search.samplers.surrogate.SurrogateSampler` does.

    It chooses among new parameters and paused trials, by expected hypervolume improvement per second, or per step in a
    study that reports no seconds. Set it as the study's ``sampler``, one a process; threads may share it.

    Args:
        pruning: of the study.
        candidates: random parameters and as many neighbours of the front, drawn for each choice.
        costs: given parameters, the costs that are known without building anything; ``flops`` may be one of them. The
            others are predicted from those of earlier trials, in proportion to a power of ``flops``.
        seed: of random draws.
    """

    def __init__(
        self,
        pruning: MultiObjectivePruning,
        *,
        candidates: int = 32,
        costs: KnownCosts | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        self._pruning, self._costs = pruning, costs
        self._surrogate = SurrogateSampler(candidates=candidates)
        self._seed = int(np.random.default_rng(seed).integers(2**31))
        self._intersection = IntersectionSearchSpace()
        self._pool: tuple[Distributions, Pool] | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The distributions of the parameters that every complete trial has."""
        return self._intersection.calculate(study)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of a new trial, or those of a paused one, which this trial then resumes."""
        if not search_space:
            return {}
        with self._pruning.history(without=trial.number) as history:
            unseen = self._pool_of(search_space).unseen(history)
            pauses = self._pruning.can_resume and "fixed_params" not in trial.system_attrs
            choice = self._surrogate.choose(history, unseen, pauses=pauses)
        if choice is None:  # every combination was tried
            return {}
        if isinstance(choice, int):
            paused = self._pruning.resume(trial.number, choice)
            return {name: paused[name] for name in search_space}
        return dict(choice.parameters)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, or that of the paused trial which this trial resumes."""
        paused = self._pruning.paused(trial)
        if paused is not None and param_name in paused.params:
            return paused.params[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _pool_of(self, distributions: Distributions) -> Pool:
        if self._pool is None or self._pool[0] != distributions:
            size = self._surrogate.candidates
            pool = Pool(_Space(distributions), self._counted, size=size, limits={}, seed=self._seed)
            self._pool = dict(distributions), pool
        return self._pool[1]

    def _counted(self, architecture: Architecture) -> Mapping[str, float]:
        return self._costs(architecture["model"]) if self._costs else {}


class _Space:
    """Parameters with Optuna's distributions, as a space of architectures."""

    def __init__(self, distributions: Distributions) -> None:
        self._distributions = distributions

    def suggest(self, trial: Trial) -> Architecture:
        """Sample all parameters."""
        return described({name: suggest(trial, name, each) for name, each in self._distributions.items()})


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Sample a parameter with one of Optuna's distributions."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(name, low, high, step=step, log=log)
    raise ValueError(f"{name}: {distribution}: it must be a categorical, int or float distribution")
