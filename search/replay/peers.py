"""Strategies of other packages, for comparisons only: ``pip install 'paretoformer[baselines]'``.

``qnehvi`` is a sampler: noisy expected hypervolume improvement by BoTorch (Daulton et al. 2021, arXiv:2105.08195) as
Optuna's integration runs it, on the parameters that all complete trials have. ``syne_moasha`` is a pruner: Syne Tune's
MO-ASHA (Schmucker et al. 2021, arXiv:2106.12639).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.pruning import Pruner
from search.study.history import History
from search.study.records import Stop
from spaces.dimensions import ConfigError


class QNEHVI(BaseSampler):
    """BoTorch's qNEHVI after 10 random trials; what it computes follows from the study alone.

    Args:
        seed: of random draws.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        integration = import_module("optuna_integration.botorch")
        propose = import_module("optuna_integration.botorch.botorch").qnehvi_candidates_func
        self._sampler = integration.BoTorchSampler(candidates_func=propose, seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: D102
        space: dict[str, BaseDistribution] = self._sampler.infer_relative_search_space(study, trial)
        return space

    def sample_relative(  # noqa: D102
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        params: dict[str, Any] = self._sampler.sample_relative(study, trial, search_space)
        return params

    def sample_independent(  # noqa: D102
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(  # noqa: D102
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


class SyneMoAsha(Pruner):
    """Syne Tune's MO-ASHA of loss and costs; it has state, so this is for one search in one process.

    Args:
        eta: reduction factor.
        min_epochs: the first rung.
    """

    def __init__(self, *, eta: int, min_epochs: int) -> None:
        self._make = import_module("syne_tune.optimizer.schedulers.multiobjective.moasha").MOASHA
        self._trial = import_module("syne_tune.backend.trial_status").Trial
        self._settings = {"grace_period": min_epochs, "reduction_factor": eta, "time_attr": "epoch", "max_t": 10**6}
        self._rule: Any = None
        self._known: set[int] = set()

    def decide(self, row: int, epoch: int, history: History) -> Stop | None:
        """Stop when Syne Tune does."""
        if epoch == 0:
            return None
        names = ["loss", *history.objectives.costs]
        if self._rule is None:
            self._rule = self._make({}, names, random_seed=0, **self._settings)
        number = int(history.numbers[row])
        trial = self._trial(number, {}, datetime.now())
        if number not in self._known:
            self._known.add(number)
            self._rule.on_trial_add(trial)
        values = [history.losses_at(epoch)[row], *history.costs[row]]
        result = {"epoch": epoch, **dict(zip(names, map(float, values), strict=True))}
        return Stop("Syne Tune's MO-ASHA", epoch) if self._rule.on_trial_result(trial, result) == "STOP" else None


SAMPLERS = {"qnehvi": ({"_target_": f"{__name__}.QNEHVI"}, ("botorch", "optuna_integration"))}
PRUNERS = {"syne_moasha": ({"_target_": f"{__name__}.SyneMoAsha", "eta": 3, "min_epochs": 1}, ("syne_tune",))}


def peers(group: str) -> dict[str, dict[str, Any]]:
    """The settings of the samplers or pruners of other packages, by name; ``group`` is ``sampler`` or ``pruner``."""
    return {name: settings for name, (settings, _) in (SAMPLERS if group == "sampler" else PRUNERS).items()}


def check_installed(group: str, name: str) -> None:
    """Raise ConfigError if a package is missing that a sampler or pruner of :func:`peers` needs."""
    _, packages = (SAMPLERS if group == "sampler" else PRUNERS)[name]
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(f"{name}: the package {package} is missing; pip install 'paretoformer[baselines]'")
