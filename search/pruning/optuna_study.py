"""Early stopping in any multi-objective Optuna study: a metric that is learned against costs known before training.

Optuna's ``Trial.report`` and ``Trial.should_prune`` raise ``NotImplementedError`` in a study of several objectives.
:class:`MultiObjectivePruning` has both, for the rules of :mod:`search.pruning`.

Learning curves and costs are stored in the trials' user attributes, so any storage and number of workers will do. Not
as intermediate values: Optuna's TPE sampler fails on a pruned trial that has some in a multi-objective study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from threading import Lock
from typing import Any

import optuna
from optuna.study import StudyDirection

from search.pruning import Pruner
from search.study.history import History
from search.study.records import Direction, Objectives, Record, State
from search.study.store import TrialStore
from spaces.dimensions import check_whole


class MultiObjectivePruning:
    """Reports learning curves and decides pruning in a study whose objective returns the metric, then the costs.

    Create one a process; threads may share it. The objective calls :meth:`set_costs` once, then :meth:`report` and
    :meth:`should_prune` after every step, and raises ``optuna.TrialPruned`` itself. A rule that pauses trials only
    stops them here.

    Args:
        study: its first direction is that of the metric; the others, one for each cost, are ``minimize``.
        pruner: a rule of :mod:`search.pruning`.
        metric: its name.
        costs: names of the costs in the order of the objectives; a trial's costs are constant and known at its start.
        chance: the metric of random guessing.
        best: the best possible metric.
        ceilings: upper bound of each cost; a trial above it adds no hypervolume.

    Raises:
        ValueError: the arguments do not fit each other or the study.
    """

    def __init__(
        self,
        study: optuna.Study,
        pruner: Pruner,
        *,
        metric: str,
        costs: Sequence[str],
        chance: float,
        best: float,
        ceilings: Sequence[float],
    ) -> None:
        if isinstance(costs, str) or not costs or len({metric, *costs}) != 1 + len(costs):
            raise ValueError(f"metric={metric!r}, costs={costs!r}: they must be distinct names, with at least one cost")
        if len(ceilings) != len(costs) or not all(0 < ceiling < math.inf for ceiling in ceilings):
            raise ValueError(f"ceilings={ceilings!r}: they must be finite and above 0, one for each of {_names(costs)}")
        first, *others = study.directions
        if others != [StudyDirection.MINIMIZE] * len(costs):
            shown = ", ".join(each.name.lower() for each in study.directions)
            raise ValueError(
                f"the study's directions are {shown}: they must be that of {metric}, then minimize for {_names(costs)}"
            )
        direction: Direction = "maximize" if first == StudyDirection.MAXIMIZE else "minimize"
        low, high = (chance, best) if direction == "maximize" else (best, chance)
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"chance={chance}, best={best}: to {direction} {metric}, best must be better than chance")
        self.study, self.pruner = study, pruner
        self.objectives = Objectives(metric, direction, tuple(costs), chance, best, tuple(ceilings))
        self._store = TrialStore(study)
        self._history = History(self.objectives)
        self._finished: set[int] = set()  # trials whose records are final
        self._lock = Lock()

    def set_costs(self, trial: optuna.Trial, **costs: float) -> None:
        """Set all costs of a trial, before its first step.

        Raises:
            ValueError: a cost is missing, unknown or not a finite number.
        """
        expected = self.objectives.costs
        if set(costs) != set(expected):
            raise ValueError(f"trial {trial.number}: costs {_names(costs)}: they must be {_names(expected)}")
        values = {name: float(value) for name, value in costs.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise ValueError(f"trial {trial.number}: {name}={value}: it must be a finite number")
        trial.set_user_attr("costs", values)
        trial.set_user_attr("curve", [])  # a trial that Optuna retries inherits the curve of the failed one

    def report(self, trial: optuna.Trial, value: float, step: int) -> None:
        """Report the metric of a trial at ``step``; NaN or infinite if training diverged.

        Steps are whole numbers from 1 that are comparable between trials: epochs rather than batches. They may have
        gaps. A step that is reported again replaces the earlier value.

        Raises:
            ValueError: ``step`` is no such number, or the costs are not set.
        """
        check_whole(1, step=step)
        attributes = self._attributes_of(trial)
        # Written before the other trials are read: of two concurrent workers at least one sees the other's value.
        trial.set_user_attr("curve", [*attributes["curve"], (step, float(value))])

    def should_prune(self, trial: optuna.Trial) -> bool:
        """Whether to stop a trial now, also before its first step; the reason is in its user attribute ``stop``.

        Raises:
            ValueError: its costs are not set.
        """
        attributes = self._attributes_of(trial)
        curve = [(step, metric) for step, metric in attributes["curve"]]
        current = Record(trial.number, State.RUNNING, attributes["costs"], curve)
        with self._lock:
            for other in self._store.records():
                if other.number not in self._finished and other.number != trial.number:
                    self._history.add(self._with_costs(other))
                    if other.state != State.RUNNING:
                        self._finished.add(other.number)
            stop = self.pruner.should_stop(current, self._history)
        if stop is None:
            return False
        trial.set_user_attr("stop", asdict(stop))
        return True

    def _attributes_of(self, trial: optuna.Trial) -> dict[str, Any]:
        attributes = trial.user_attrs
        if "costs" not in attributes:
            call = ", ".join(f"{name}=..." for name in self.objectives.costs)
            raise ValueError(f"trial {trial.number}: its costs are not set; call set_costs(trial, {call}) first")
        return attributes

    def _with_costs(self, record: Record) -> Record:
        """The record of another trial; if it never called :meth:`set_costs`, its costs are read from its values."""
        values = self.study.get_trials(deepcopy=False)[record.number].values
        if values is not None and not set(self.objectives.costs) <= set(record.costs):
            return replace(record, costs=dict(zip(self.objectives.costs, values[1:], strict=True)))
        return record


def _names(names: Sequence[str] | Mapping[str, float]) -> str:
    return ", ".join(names) or "none"
