"""A sampler whose random numbers depend only on the run's seed and how many trials were started before.

So a resumed study draws the same as an uninterrupted one, and workers that share a study and a seed draw differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.study.requeue import ordinals
from spaces.dimensions import ConfigError, check_whole
from spaces.instantiate import instantiate
from spaces.seeds import trial_seed

LEAST = {"n_startup_trials": 0, "population_size": 2}  # of settings that Optuna does not check


class SeededPerTrial(BaseSampler):
    """Wraps another sampler, which is constructed anew for each trial.

    Args:
        make: constructs the other sampler from a seed; like Optuna's, it must keep all its state in the study.
        seed: of the run.
    """

    def __init__(self, make: Callable[[int], BaseSampler], *, seed: int) -> None:
        self._make, self._seed = make, seed
        self.base = self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:  # noqa: D102
        self._sampler = self._make(trial_seed(self._seed, ordinals(study.get_trials(deepcopy=False))[trial.number]))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: D102
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(  # noqa: D102
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(  # noqa: D102
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(  # noqa: D102
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def seeded_sampler(settings: Mapping[str, Any], *, seed: int) -> SeededPerTrial:
    """The sampler of the section ``sampler``, for a run's seed.

    Raises:
        ConfigError: the section is invalid.
    """
    for name, least in LEAST.items():
        if type(settings.get(name)) is int:
            try:
                check_whole(least, **{name: settings[name]})
            except ValueError as error:
                raise ConfigError(f"sampler: {error}") from None
    return SeededPerTrial(lambda seed: instantiate(BaseSampler, settings, "sampler", seed=seed), seed=seed)
