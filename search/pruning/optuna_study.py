"""Early stopping in any multi-objective Optuna study: a metric that is learned against costs known before training.

Optuna's ``Trial.report`` and ``Trial.should_prune`` raise ``NotImplementedError`` in a study of several objectives.
:class:`MultiObjectivePruning` has both, for the rules of :mod:`search.pruning`.

Learning curves and costs are stored in the trials' user attributes, so any storage and number of workers will do. Not
as intermediate values: Optuna's TPE sampler fails on a pruned trial that has some in a multi-objective study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from threading import Lock
from typing import Any, NamedTuple

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.pruning import Pruner
from search.study import requeue
from search.study.history import History
from search.study.records import Direction, Objectives, Record, State
from search.study.store import TrialStore
from spaces.architecture import Architecture
from spaces.dimensions import check_number, check_whole


class Paused(NamedTuple):
    """A paused trial: its number, the last step before its checkpoint was saved, and its parameters."""

    number: int
    step: int
    params: Mapping[str, Any]


class MultiObjectivePruning:
    """Reports learning curves and decides pruning in a study whose objective returns the metric, then the costs.

    Create one a process; threads may share it. The objective calls :meth:`set_costs` once, then :meth:`report` and
    :meth:`should_prune` after every step but the last, and raises ``optuna.TrialPruned`` itself. Trials that a rule
    pauses are resumed if ``save`` is given and the study's sampler is a
    :class:`~search.samplers.optuna_study.StudySampler`.

    Args:
        study: its first direction is that of the metric; the others, one for each cost, are ``minimize``.
        pruner: a rule of :mod:`search.pruning`.
        metric: its name.
        costs: names of the costs in the order of the objectives; a trial's costs are constant and known at its start.
        chance: the metric of random guessing.
        best: the best possible metric.
        ceilings: upper bound of each cost; a trial above it adds no hypervolume.
        save: called when a rule pauses a trial; it saves a checkpoint under the number of the trial. The trial that
            resumes it finds this number with :meth:`paused`.

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
        save: Callable[[optuna.Trial], None] | None = None,
    ) -> None:
        if isinstance(costs, str) or not costs or len({metric, *costs}) != 1 + len(costs):
            raise ValueError(f"metric={metric!r}, costs={costs!r}: they must be distinct names, with at least one cost")
        if len(ceilings) != len(costs) or not all(0 < ceiling < math.inf for ceiling in ceilings):
            raise ValueError(f"ceilings={ceilings!r}: they must be finite and above 0, one for each of {_names(costs)}")
        first, *others = study.directions
        if others != [StudyDirection.MINIMIZE] * len(costs):
            shown = ", ".join(each.name.lower() for each in study.directions)
            raise ValueError(
                f"the study's directions are {shown}: they must be that of {metric}, the only objective that is "
                f"learned, then minimize for {_names(costs)}"
            )
        direction: Direction = "maximize" if first == StudyDirection.MAXIMIZE else "minimize"
        low, high = (chance, best) if direction == "maximize" else (best, chance)
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"chance={chance}, best={best}: to {direction} {metric}, best must be better than chance")
        self.study, self.pruner, self._save = study, pruner, save
        self.objectives = Objectives(metric, direction, tuple(costs), chance, best, tuple(ceilings))
        self._store = TrialStore(study)
        self._history = History(self.objectives)
        self._known: dict[int, Record] = {}  # the records in the history, as they were stored
        self._resumes: dict[int, int] = {}  # the paused trial that each trial of this process resumes
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
        paused, curve, seconds = self.paused(trial), [], []  # a trial that Optuna retries inherits those of the failed
        if paused is not None:
            earlier = self.study.get_trials(deepcopy=False)[paused.number].user_attrs
            curve, seconds = list(earlier["curve"]), list(earlier.get("cpu_seconds", ()))
            trial.set_user_attr("replaces", paused.number)
            trial.set_user_attr("resumed", True)
        trial.set_user_attr("curve", curve)
        if seconds or "cpu_seconds" in trial.user_attrs:
            trial.set_user_attr("cpu_seconds", seconds)

    def report(self, trial: optuna.Trial, value: float, step: int, *, seconds: float | None = None) -> None:
        """Report the metric of a trial at ``step``; NaN or infinite if training diverged.

        Steps are whole numbers from 1 that are comparable between trials: epochs rather than batches. They may have
        gaps. A step that is reported again replaces the earlier value. ``seconds`` are those of training since the
        last report; without them all steps count the same.

        Raises:
            ValueError: ``step`` is no such number, ``seconds`` are negative, or the costs are not set.
        """
        check_whole(1, step=step)
        attributes = self._attributes_of(trial)
        if seconds is not None:
            check_number(0.0, seconds=seconds)
            spent = attributes.get("cpu_seconds", [])
            trial.set_user_attr("cpu_seconds", [*spent, sum(spent[-1:]) + seconds])
        # Written before the other trials are read: of two concurrent workers at least one sees the other's value.
        trial.set_user_attr("curve", [*attributes["curve"], (step, float(value))])

    def should_prune(self, trial: optuna.Trial) -> bool:
        """Whether to stop a trial now, also before its first step; the reason is in its user attribute ``stop``.

        A trial whose rule may resume it is saved by ``save``, and its user attribute ``outcome`` is ``paused``.

        Raises:
            ValueError: its costs are not set.
        """
        attributes = self._attributes_of(trial)
        if "replaces" in attributes and self._store.is_queued_twice(trial.number):
            return True  # another worker resumed the same trial
        curve = [(step, metric) for step, metric in attributes["curve"]]
        current = Record(
            self._store.number(trial.number),
            State.RUNNING,
            attributes["costs"],
            curve,
            architecture=described(trial.params),
            cpu_seconds=attributes.get("cpu_seconds", ()),
            resumed=attributes.get("resumed", False),
        )
        with self.history(without=current.number) as history:
            stop = self.pruner.should_stop(current, history)
        if stop is None:
            return False
        if curve and self.can_resume and self._save is not None and math.isfinite(curve[-1][1]):
            self._save(trial)
            trial.set_user_attr("outcome", str(State.PAUSED))
        trial.set_user_attr("stop", asdict(stop))
        return True

    @contextmanager
    def history(self, *, without: int | None = None) -> Iterator[History]:
        """The trials as arrays, updated except for one of them, while no other thread changes them."""
        with self._lock:
            for record in self._store.records():
                if record.number != without and self._known.get(record.number) is not record:
                    self._history.add(self._completed(record))
                    self._known[record.number] = record
            yield self._history

    @property
    def can_resume(self) -> bool:
        """Whether trials are paused: the rule does so, and their checkpoints are saved."""
        return self.pruner.pauses and self._save is not None

    def resume(self, trial_number: int, number: int) -> Mapping[str, Any]:
        """Let a trial that is being sampled resume a paused one, given the number of its first start.

        Return the parameters of both.
        """
        trials = self.study.get_trials(deepcopy=False)
        started = requeue.chain(trials, requeue.latest(trials)[number].number)
        paused = next(each for each in started if each.user_attrs.get("outcome") == State.PAUSED)
        self._resumes[trial_number] = paused.number
        return paused.params

    def paused(self, trial: optuna.Trial | FrozenTrial) -> Paused | None:
        """The paused trial that this one resumes; None if it starts anew."""
        number = trial.user_attrs.get("replaces", self._resumes.get(trial.number))
        if number is None:
            return None
        earlier = self.study.get_trials(deepcopy=False)[number]
        return Paused(number, earlier.user_attrs["curve"][-1][0], earlier.params)

    def _attributes_of(self, trial: optuna.Trial) -> dict[str, Any]:
        attributes = trial.user_attrs
        if "costs" not in attributes:
            call = ", ".join(f"{name}=..." for name in self.objectives.costs)
            raise ValueError(f"trial {trial.number}: its costs are not set; call set_costs(trial, {call}) first")
        return attributes

    def _completed(self, record: Record) -> Record:
        """The record with what a study of this project stores: settings, and costs even without :meth:`set_costs`."""
        values = self.study.get_trials(deepcopy=False)[record.number].values
        costs = record.costs
        if values is not None and not set(self.objectives.costs) <= set(costs):
            costs = dict(zip(self.objectives.costs, values[1:], strict=True))
        return replace(record, costs=costs, architecture=described(record.parameters))


def described(params: Mapping[str, Any]) -> Architecture:
    """Parameters in the form of an architecture."""
    return {"model": dict(params)}


def _names(names: Sequence[str] | Mapping[str, float]) -> str:
    return ", ".join(names) or "none"
