"""From a composed configuration to a study that can be worked on: construct, check that it fits together, then open."""

from __future__ import annotations

import re
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import torch
from omegaconf import OmegaConf

from search.evaluate import Search, measure
from search.samplers.candidates import Pool
from search.samplers.seeded import SeededPerTrial
from search.study import warm_start as warm
from search.study.records import Direction, Objectives
from search.study.storage import agree, open_storage
from search.study.storage import join as join_study
from search.study.trials import enqueue_first
from search.tracking import Tracking
from search.training.settings import TrainSettings
from spaces.build import instantiate, invalid_corners
from spaces.dimensions import ConfigError
from spaces.space import Space
from spaces.tasks import Task
from spaces.tasks.sources.checks import check_data

NOT_IDENTITY = (
    "study",
    "n_trials",
    "storage",
    "tracking",
    "checkpoints",
    "warm_start",
)  # what may differ from worker to worker


def join(
    config: Mapping[str, Any], space: Space, beginnings: Sequence[Mapping[str, Any]]
) -> tuple[optuna.Study, Search, Tracking, float]:
    """Construct everything, check that it fits together, and only then open the storage and the tracker.

    Args:
        config: the composed configuration as plain values.
        space: what it searches.
        beginnings: the parameters that a new study begins with.

    Returns:
        The study, what its trials need, the tracker, and the seconds that went into measuring the largest networks.

    Raises:
        ConfigError: something doesn't fit; nothing was written then.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of samplers: we know
    torch.set_num_threads(1)  # of two small matrix products on two cores, one process each is faster than both shared
    task: Task = instantiate(config["task"], "task")
    pruner = instantiate(config["pruner"], "pruner")
    meter = instantiate(config["latency"], "latency")
    tracking: Tracking = instantiate(config["tracking"], "tracking")
    chosen = instantiate(config["sampler"], "sampler", seed=config["seed"])
    sampler = SeededPerTrial(lambda seed: instantiate(config["sampler"], "sampler", seed=seed), seed=config["seed"])
    check(space, task)
    storage = instantiate(
        {"_target_": f"{open_storage.__module__}.{open_storage.__name__}", **config["storage"]}, "storage"
    )
    if config["warm_start"]:
        aims = Objectives(task.metric, task.direction, tuple(config["costs"]), task.chance, task.best, ceilings=())
        beginnings = [*warm.beginnings(storage, config["warm_start"], space, aims), *beginnings]
    identity = {name: config[name] for name in config if name not in NOT_IDENTITY}
    costs: list[Direction] = ["minimize"] * len(config["costs"])
    study = join_study(
        storage, config["study"], directions=[task.direction, *costs], sampler=sampler, identity=identity
    )
    measuring = time.perf_counter()
    ceilings = agree(
        study,
        "ceilings",
        lambda: [
            max(costs[name] for costs in (measure(each, task, meter)[0] for each in space.largest()))
            for name in config["costs"]
        ],
    )
    measuring = time.perf_counter() - measuring
    objectives = Objectives.of(task, config["costs"], ceilings)
    enqueue_first(study, beginnings)
    where = sqlalchemy.make_url(config["storage"]["url"]).render_as_string(hide_password=True)
    tracking.start(
        config["study"],
        identity=agree(study, "id", lambda: uuid.uuid4().hex),
        objectives=objectives,
        config=OmegaConf.to_yaml(OmegaConf.create({**config, "storage": where})),
    )
    search = Search(
        space=space,
        task=task,
        pruner=pruner,
        meter=meter,
        objectives=objectives,
        limits=config["limits"],
        seed=config["seed"],
        checkpoints=Path(config["checkpoints"]),
        sampler=chosen,
        pool=Pool(space, task, size=getattr(chosen, "candidates", 1), limits=config["limits"], seed=config["seed"]),
    )
    return study, search, tracking, measuring


def check(space: Space, task: Task) -> None:
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
