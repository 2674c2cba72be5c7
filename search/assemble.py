"""From a composed configuration to a study that can be worked on: construct, check that it fits together, then open."""

from __future__ import annotations

import re
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from omegaconf import OmegaConf

from search.costs.measured import MeasuredCosts
from search.evaluate import Search
from search.lifecycle import proposer_of
from search.samplers.candidates import Pool
from search.samplers.seeded import SeededPerTrial
from search.study import warm_start
from search.study.records import Direction, Objectives
from search.study.storage import get_or_set_attr, open_storage, open_study, shown
from search.study.store import TrialStore
from search.tracking import Tracking
from search.training.learner import LightningLearner
from search.training.settings import TrainSettings
from spaces.build import instantiate, invalid_corners
from spaces.dimensions import ConfigError
from spaces.space import Space
from spaces.tasks import Task
from spaces.tasks.sources.checks import check_data

MAY_DIFFER = ("study", "n_trials", "storage", "tracking", "checkpoints", "warm_start")  # between workers of a study


@dataclass(frozen=True)
class Assembled:
    """What a worker works with."""

    store: TrialStore
    search: Search
    costs: MeasuredCosts
    tracking: Tracking
    measuring_s: float  # seconds that went into measuring the largest networks


def build_search(config: Mapping[str, Any], space: Space, initial_params: Sequence[Mapping[str, Any]]) -> Assembled:
    """Construct everything, check that it fits together, and only then open the storage and the tracker.

    Args:
        config: the composed configuration as plain values.
        space: what it searches.
        initial_params: the parameters that a new study starts with.

    Raises:
        ConfigError: something doesn't fit; nothing was written then.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of samplers: we know
    torch.set_num_threads(1)  # of two small matrix products on two cores, one process each is faster than both shared
    task: Task = instantiate(config["task"], "task")
    pruner = instantiate(config["pruner"], "pruner")
    costs = MeasuredCosts(task, instantiate(config["latency"], "latency"))
    tracking: Tracking = instantiate(config["tracking"], "tracking")
    seed, limits = config["seed"], config["limits"]
    sampler = SeededPerTrial(lambda seed: instantiate(config["sampler"], "sampler", seed=seed), seed=seed)
    validate_space(space, task)
    storage = instantiate(
        {"_target_": f"{open_storage.__module__}.{open_storage.__name__}", **config["storage"]}, "storage"
    )
    if config["warm_start"]:
        objectives = Objectives.of(task, config["costs"], ceilings=())
        warm = warm_start.initial_params(storage, config["warm_start"], space, objectives)
        initial_params = [*warm, *initial_params]
    directions: dict[str, Direction] = {task.metric: task.direction, **dict.fromkeys(config["costs"], "minimize")}
    identity = {name: config[name] for name in config if name not in MAY_DIFFER}
    study = open_study(storage, config["study"], directions=directions, sampler=sampler, identity=identity)
    measuring = time.perf_counter()
    ceilings = get_or_set_attr(study, "ceilings", lambda: _ceilings(space, costs, config["costs"]))
    measuring = time.perf_counter() - measuring
    objectives = Objectives.of(task, config["costs"], ceilings)
    store = TrialStore(study)
    store.enqueue_first(initial_params)
    tracking.start(
        config["study"],
        identity=get_or_set_attr(study, "id", lambda: uuid.uuid4().hex),
        objectives=objectives,
        config=OmegaConf.to_yaml(OmegaConf.create({**config, "storage": shown(config["storage"]["url"])})),
    )
    pool = Pool(space, task, size=getattr(sampler.base, "candidates", 1), limits=limits, seed=seed)
    search = Search(
        space=space,
        objectives=objectives,
        limits=limits,
        cost_model=costs,
        proposer=proposer_of(sampler.base, pruner, pool.unseen),
        pruner=pruner,
        learner=LightningLearner(task, seed, Path(config["checkpoints"]) / config["study"]),
    )
    return Assembled(store, search, costs, tracking, measuring)


def _ceilings(space: Space, model: MeasuredCosts, names: Sequence[str]) -> list[float]:
    """The costs of the most expensive of the space's largest architectures: where the hypervolume's box ends."""
    largest = [model.costs(architecture) for architecture in space.largest()]
    every = [{"latency_ms": each.timing.ms, **each.counted} for each in largest]
    return [max(costs[name] for costs in every) for name in names]


def validate_space(space: Space, task: Task) -> None:
    """Read the data and build every corner of the space.

    Raises:
        ConfigError: what is wrong with the data, or which corners don't fit it.
    """
    try:
        check_data(task)
    except ValueError as error:
        raise ConfigError(f"task: {error}") from error
    problems = invalid_corners(space, task)
    for settings in space.train_corners():
        try:
            instantiate({"_target_": f"{TrainSettings.__module__}.{TrainSettings.__qualname__}", **settings}, "train")
        except ConfigError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"these corners of the space do not fit the task:\n{lines}{_advice(problems)}")


def _advice(problems: Sequence[str]) -> str:
    """How to go on without the first mechanism that does not fit, if it is one."""
    misfit = next((match for problem in problems if (match := re.match(r"attention\.(\w+):? (\w+)=", problem))), None)
    if misfit is None:
        return ""
    name, knob = misfit.groups()
    return f"\nnarrow it, 'space.attention.{name}.{knob}=...', or search without it, '~space.attention.{name}'"
