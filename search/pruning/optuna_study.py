"""The pruners in any multi-objective Optuna study: a metric that is learned beside costs that are known at once.

Optuna itself refuses ``trial.report`` and ``trial.should_prune`` where a study has several objectives. Here a trial
says first what it costs, then after every step what it has learned; see :class:`Watch`.

All is kept in the trials' user attributes, so any storage and number of workers will do. Not in Optuna's intermediate
values: its TPE sampler fails on a pruned trial that has some in a study of several objectives.
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


class Watch:
    """Asks a pruner about the trials of a study whose objective returns the metric first and then the costs.

    One a process; threads may share it. A trial calls :meth:`known` once, then :meth:`report` and :meth:`should_stop`
    after every step, and raises ``optuna.TrialPruned`` itself. A rule that pauses trials only stops them here.

    Args:
        study: its first direction is the metric's; the others, one a cost, are ``minimize``.
        pruner: one of :mod:`search.pruning`.
        metric: its name.
        costs: names of what is known of a trial before its first step and never changes, in the objectives' order.
        chance: the metric of guessing.
        best: the best metric there can be.
        ceilings: of each cost, what is as bad as it gets; a trial beyond adds nothing to the front.

    Raises:
        ValueError: these don't fit each other, or the study.
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
            raise ValueError(f"metric={metric!r}, costs={costs!r}: they must be different names, at least one cost")
        if len(ceilings) != len(costs) or not all(0 < ceiling < math.inf for ceiling in ceilings):
            raise ValueError(f"ceilings={ceilings!r}: there must be a number above 0 for each of {_names(costs)}")
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
        self._ended: set[int] = set()  # these stay as they are
        self._lock = Lock()

    def known(self, trial: optuna.Trial, **costs: float) -> None:
        """Say what a trial costs, in all the costs, before its first step.

        Raises:
            ValueError: a cost is missing, unknown or not a finite number.
        """
        wanted = self.objectives.costs
        if set(costs) != set(wanted):
            raise ValueError(f"trial {trial.number}: costs {_names(costs)}: they must be {_names(wanted)}")
        numbers = {name: float(value) for name, value in costs.items()}
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise ValueError(f"trial {trial.number}: {name}={number}: it must be a finite number")
        trial.set_user_attr("costs", numbers)
        trial.set_user_attr("curve", [])  # a trial that Optuna retries inherits that of the one that died

    def report(self, trial: optuna.Trial, values: Mapping[str, float], *, step: int) -> None:
        """Say what a trial has learned by ``step``: ``values`` holds the metric, NaN or infinite where it was lost.

        Steps are whole numbers from 1, the same for all trials: epochs, rather than batches. They may leave gaps, and
        one that is reported again replaces what was said of it.

        Raises:
            ValueError: ``values`` holds anything else, ``step`` is no such number, or the costs are not known.
        """
        check_whole(1, step=step)
        if set(values) != {self.objectives.metric}:
            raise ValueError(
                f"trial {trial.number}: {_names(values)} at step {step}: report {self.objectives.metric} alone"
            )
        attributes = self._attributes_of(trial)
        # Written before the others' are read: of two that race, one sees the other.
        trial.set_user_attr("curve", [*attributes["curve"], (step, float(values[self.objectives.metric]))])

    def should_stop(self, trial: optuna.Trial) -> bool:
        """Whether to end a trial now, as pruned; also before its first step. Why stands in its attribute ``stop``.

        Raises:
            ValueError: its costs are not known.
        """
        attributes = self._attributes_of(trial)
        own = Record(
            trial.number, State.RUNNING, attributes["costs"], [(step, metric) for step, metric in attributes["curve"]]
        )
        with self._lock:
            for other in self._store.records():
                if other.number not in self._ended and other.number != trial.number:
                    self._history.add(self._with_costs(other))
                    if other.state != State.RUNNING:
                        self._ended.add(other.number)
            stop = self.pruner.stops(own, self._history)
        if stop is None:
            return False
        trial.set_user_attr("stop", asdict(stop))
        return True

    def _attributes_of(self, trial: optuna.Trial) -> dict[str, Any]:
        attributes = trial.user_attrs
        if "costs" not in attributes:
            call = ", ".join(f"{name}=..." for name in self.objectives.costs)
            raise ValueError(f"trial {trial.number}: its costs are not known; call known(trial, {call}) first")
        return attributes

    def _with_costs(self, record: Record) -> Record:
        """Of a trial that ended without calling :meth:`known`, the costs are read from its values."""
        values = self.study.get_trials(deepcopy=False)[record.number].values
        if values is not None and not set(self.objectives.costs) <= set(record.costs):
            return replace(record, costs=dict(zip(self.objectives.costs, values[1:], strict=True)))
        return record


def _names(names: Sequence[str] | Mapping[str, float]) -> str:
    return ", ".join(names) or "none"
