"""Construct a search from the composed configuration, check that its parts fit, and open the study."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from omegaconf import OmegaConf

from search.budget.deadline import Deadline
from search.budget.epochs import plan_epochs
from search.compress.prepare import predicted_front, prepared_parent, validate_compression
from search.compress.teacher import stored_teacher
from search.config import hide_passwords
from search.costs.exclusive import cores
from search.costs.hardware import check_hardware
from search.costs.measured import MeasuredCosts, largest_costs
from search.costs.meter import Meter, TimeShare
from search.evaluate import Search
from search.lifecycle import check_preference, proposer_of
from search.pruning import Pruner
from search.report.answers import Description
from search.report.environment import environment
from search.report.imbalance import describe_imbalance
from search.report.sparsity import describe_sparsity
from search.samplers.candidates import Pool
from search.samplers.seeded import seeded_sampler
from search.study import warm_start
from search.study.identity import identity_of
from search.study.records import Direction, Objectives
from search.study.storage import open_read_only, open_storage, open_study
from search.study.store import TrialStore
from search.tracking import Tracking
from search.tracking.background import BackgroundTracking
from search.training import Parent
from search.training.device import Device, select_device
from search.training.learner import LightningLearner
from search.training.remote import folders
from search.training.speed import middle_epoch_seconds
from search.training.weights import WeightsFolder
from search.validate import validate_data, validate_latency, validate_space
from spaces.baselines import BaselineResult
from spaces.baselines.of_task import evaluate_baselines
from spaces.dimensions import ConfigError
from spaces.fingerprint import fingerprint
from spaces.instantiate import check_arguments, instantiate
from spaces.space import Space
from spaces.tasks import SPLITS, Task

MEASURING_LARGEST = "measuring the largest networks"
SPEED_SHARE = 0.03  # of the budget, for measuring the speed of training


@dataclass(frozen=True)
class Components:
    """The parts of a run."""

    store: TrialStore
    search: Search
    costs: MeasuredCosts
    tracking: Tracking
    weights: WeightsFolder
    baselines: Sequence[BaselineResult]
    notes: Sequence[str]  # for the user


def build_search(
    config: Mapping[str, Any],
    space: Space,
    initial_params: Sequence[Mapping[str, Any]],
    *,
    task: Task | None = None,
    deadline: Deadline | None = None,
    phase: Callable[[str], None] = lambda text: None,
    command: str = "",
    budget: str = "",
) -> Components:
    """Construct and check all parts, then open the storage and start tracking.

    Args:
        config: the composed configuration as plain values.
        space: the search space.
        initial_params: parameters of the first trials of a new study.
        task: the task, if it was constructed before.
        deadline: of the run; None for no limit.
        phase: called with what is done next, such as "reading the data".
        command: that the user typed, to be stored; empty of a further worker.
        budget: of the run in words, to be stored with the command.

    Raises:
        ConfigError: the configuration is invalid; nothing has been written.
    """
    deadline = deadline or Deadline()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of Optuna's samplers
    torch.set_num_threads(1)  # small networks train faster with a thread per process
    task = task or instantiate(Task, config["task"], "task")
    pruner = instantiate(Pruner, config["pruner"], "pruner")
    meter = instantiate(Meter, config["latency"], "latency")
    meter.time_share = TimeShare(config["measuring_share"], deadline.elapsed_s)
    seed, limits = config["seed"], config["limits"]
    costs = MeasuredCosts(task, meter, also={*config["costs"], *(name for name in limits if limits[name] is not None)})
    tracking = instantiate(Tracking, config["tracking"], "tracking")
    device = select_device(config["device"], precision=config["precision"], compile_network=config["compile"])
    sampler = seeded_sampler(config["sampler"], seed=seed)
    check_preference(config["prefer"], config["costs"], sampler.base)
    check_arguments(open_storage, config["storage"], "storage")
    folder, remote = folders(config["checkpoints"])
    phase("reading the data")
    validate_data(task)
    phase("checking the space")
    validate_space(space, task)
    validate_compression(space, config["teacher"], task)
    validate_latency(meter, space, task)
    teacher = config["teacher"] and stored_teacher(config["storage"]["url"], config["teacher"], task)
    if config["warm_start"] is not None:
        initial_params = [*_warm_start(config, space, task), *initial_params]
    try:
        storage = open_storage(**config["storage"])
    except ConfigError as error:
        raise ConfigError(f"storage: {error}") from None
    directions: dict[str, Direction] = {task.metric: task.direction, **dict.fromkeys(config["costs"], "minimize")}
    study = open_study(storage, config["study"], directions=directions, sampler=sampler, identity=identity_of(config))
    store = TrialStore(study)
    check_hardware(config["hardware"], meter.hardware, store.hardware)
    ceilings = store.ceilings(lambda: _ceilings(space, costs, config["costs"], phase))
    objectives = Objectives.of(task, config["costs"], ceilings, config["prefer"])
    baselines = store.baselines((lambda: _baselines(task, phase)) if config["baselines"] else None)
    data = store.data(lambda: _data(task, phase))
    parent: Parent | None = None
    whole = space  # with the epochs as given, which those of the parent do not depend on
    space, notes = _with_epochs(config, space, store, task, device, deadline, phase)
    if space.compression is None:
        parent = teacher or None
    else:
        parent = library = prepared_parent(
            whole,
            task,
            seed=seed,
            fingerprint=data["fingerprint"],
            folder=folder,
            device=device,
            deadline=deadline,
            teacher=teacher.network if teacher else None,
            threads=min(config["workers"], cores()) if command else 1,
            report=phase,
        )
        initial_params = predicted_front(space, store, library, costs, deadline, phase)
    store.enqueue_first(initial_params)
    if type(tracking) is not Tracking:
        tracking = BackgroundTracking(tracking)
    if command:
        store.write_run_start(hide_passwords(command), budget=budget, checkpoints=folder.absolute(), **environment())
    phase("starting tracking")
    tracking.start(
        config["study"],
        identity=store.study_id(),
        objectives=objectives,
        baselines=baselines,
        description=Description.of(store, objectives, space.dimension_names()),
        config=OmegaConf.to_yaml(OmegaConf.create({**config, "storage": hide_passwords(config["storage"]["url"])})),
    )
    size = getattr(sampler.base, "candidates", 1)
    pool = Pool(space, costs.counted_of_candidate, size=size, limits=limits, seed=seed, trainable=True)
    learner = LightningLearner(
        task,
        seed,
        folder / config["study"],
        device,
        deadline.is_over,
        keeps_weights=config["weights_mb"] != 0,
        checkpoints=remote and f"{remote}/{config['study']}",
        parent=parent,
    )
    search = Search(
        space=space,
        objectives=objectives,
        limits=limits,
        cost_model=costs,
        proposer=proposer_of(sampler.base, pruner, pool.unseen),
        pruner=pruner,
        learner=learner,
        deadline=deadline,
    )
    notes = [*describe_imbalance(task), *describe_sparsity(space), *notes]
    return Components(store, search, costs, tracking, learner.weights, baselines, notes)


def _warm_start(config: Mapping[str, Any], space: Space, task: Task) -> list[Mapping[str, Any]]:
    """The parameters of the front of the study ``warm_start``, whose storage is only read."""
    try:
        with open_read_only(config["storage"]["url"]) as storage:
            objectives = Objectives.of(task, config["costs"], ceilings=())
            return warm_start.initial_params(storage, config["warm_start"], space, objectives)
    except ConfigError as error:
        raise ConfigError(f"warm_start: {error}") from None


def _with_epochs(
    config: Mapping[str, Any],
    space: Space,
    store: TrialStore,
    task: Task,
    device: Device,
    deadline: Deadline,
    phase: Callable[[str], None],
) -> tuple[Space, list[str]]:
    """The space with the epochs of the study, which the budget of its first run may have reduced, and why."""
    fixed, plans = space.train["epochs"], []

    def compute() -> int | None:
        if not deadline.limited or not isinstance(fixed, int):
            return None
        phase("measuring the speed of training")
        epoch_s = middle_epoch_seconds(
            space, task, device=device, seed=config["seed"], limit_s=SPEED_SHARE * deadline.budget_s
        )
        if epoch_s is None:
            return None
        plans.append(plan_epochs(fixed, epoch_s, deadline.left_s(), workers=config["workers"]))
        return plans[0].epochs

    epochs = store.epochs(compute)
    notes = [plan.message for plan in plans if plan.message and plan.epochs == epochs]
    if epochs is None or epochs == fixed:
        return space, notes
    if not notes:
        notes = [f"train.epochs is {epochs} instead of {fixed}, as in the trials that the study has."]
    return Space({**config["space"], "train": {**config["space"]["train"], "epochs": epochs}}), notes


def _data(task: Task, phase: Callable[[str], None]) -> dict[str, Any]:
    phase("computing the fingerprint of the data")
    examples = {split: task.data(split).size for split in SPLITS}
    return {"fingerprint": fingerprint(task), "examples": examples}


def _baselines(task: Task, phase: Callable[[str], None]) -> list[BaselineResult]:
    phase("fitting baselines")
    return evaluate_baselines(task)


def _ceilings(space: Space, costs: MeasuredCosts, names: Sequence[str], phase: Callable[[str], None]) -> list[float]:
    phase(MEASURING_LARGEST)
    return largest_costs(space, costs, names)
