"""The command that searches: compose and check a configuration, open the study, run trials, print the front.

``python -m search.run +space=nlp``; ``--help`` lists all options. torch, Lightning, Optuna and MLflow are imported only
after the configuration was composed, so that ``--help`` and errors appear at once.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from search.budget.scale import (
    AUTO,
    check_scale,
    has_scales,
    keep_given_input,
    names_own_data,
    register_resolver,
    with_default_space,
)
from search.config import CONF, check_choices, parse_duration, refuse, validate_config
from search.workers import WorkerProcesses, worker_count
from spaces.dimensions import ConfigError
from spaces.space import Space

if TYPE_CHECKING:
    from search.budget.deadline import Deadline
    from search.budget.patience import Patience
    from search.report.status import StatusLine
    from search.study.records import Record
    from spaces.tasks import Task


DEFAULT_TRIALS = 36  # n_trials=auto without budget and patience


def main(*, used_s: float = 0.0) -> None:
    """Run; invalid input ends with a message and exit code 2. ``used_s`` seconds of the run have passed before."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise Hydra prints the error itself and exits
    start = time.monotonic() - used_s
    register_resolver()
    arguments = with_default_space(sys.argv[1:])
    if arguments != sys.argv[1:]:
        print(f"No space is named: {arguments[-1]} suits the task.", flush=True)  # noqa: T201
    sys.argv[1:] = arguments

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def composed(config: DictConfig) -> None:
        _run_composed(config, start)

    try:
        check_choices(arguments)
        composed()
    except ConfigError as error:
        sys.exit(refuse(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(_composition_error(error)))
    except KeyboardInterrupt:  # run() handles it while trials run
        sys.exit(128 + signal.SIGINT)


def _run_composed(config: DictConfig, start: float) -> None:
    if "space" not in config:
        names = ", ".join(GlobalHydra.instance().config_loader().get_group_options("space"))
        sys.exit(refuse(f"Name a search space: python -m search.run +space=nlp (known: {names})"))
    choices = HydraConfig.get().runtime.choices
    try:
        check_scale(config, choices["space"])
        keep_given_input(config, HydraConfig.get().overrides.task)
        chooses = config.scale == AUTO and has_scales(config) and names_own_data(config.task)
        task = _choose_scale(config) if chooses else None
        tree: Any = OmegaConf.to_container(config, resolve=True)
        tree["study"] = tree.get("study") or f"{choices['space']}-{choices['task']}"
        code = run(tree, used_s=time.monotonic() - start, task=task)
    except ConfigError as error:
        code = refuse(str(error))
    if code:
        sys.exit(code)


def _choose_scale(config: DictConfig) -> Task | None:
    """Set the scale that suits the data; return the task with its data, None if its settings depend on the scale."""
    print("Reading the data to choose a scale", flush=True)  # noqa: T201
    from search.budget.scale import suitable_scale
    from search.training.device import select_device
    from spaces.instantiate import instantiate

    settings = OmegaConf.to_container(config.task, resolve=True)
    task: Task = instantiate(settings, "task")
    device = select_device(config.device, precision=config.precision, compile_network=config["compile"])
    try:
        config.scale, why = suitable_scale(task, gpu=device.accelerator != "cpu")
    except ValueError as error:
        raise ConfigError(f"task: {error}") from error
    print(f"{why} (scale=... sets another)", flush=True)  # noqa: T201
    return task if OmegaConf.to_container(config.task, resolve=True) == settings else None


def _composition_error(error: BaseException) -> str:
    """Hydra's message; of an unknown key one that lists the known keys, of a value that cannot be merged the remedy."""
    cause: BaseException | None = error
    while cause is not None:
        parent, key = getattr(cause, "parent_node", None), getattr(cause, "full_key", None)
        if isinstance(parent, DictConfig) and key and "not in struct" in str(cause):
            known = ", ".join(map(str, parent))
            return f"{key}: unknown key; known: {known}\nto add it: +{key}=VALUE"
        if key and "Cannot merge" in str(cause):
            override = str(error).removeprefix("Error merging override ")
            return f"{key}: a list and a mapping cannot be merged\nto replace it as a whole: '~{key}' '+{override}'"
        cause = cause.__cause__
    return str(error)


def run(config: Mapping[str, Any], *, used_s: float = 0.0, task: Task | None = None, further: bool = False) -> int:
    """Search with ``config``, the composed configuration as plain values, and return the exit code.

    Args:
        config: the configuration.
        used_s: seconds of the run that have passed before.
        task: the task of the configuration, if it was constructed before.
        further: whether this is a further worker of a run that prints and tracks its end.

    Raises:
        ConfigError: the configuration is invalid; nothing has been written.
    """
    from search.budget.deadline import Deadline
    from search.report.status import StatusLine

    start = time.monotonic() - used_s
    validate_config(config)
    space = Space(config["space"])
    n_trials, initial_params = _trials(config, space)
    budget_s = math.inf if config["budget"] is None else parse_duration(config["budget"], "budget")
    deadline = Deadline(budget_s, used_s=time.monotonic() - start)
    with StatusLine(deadline, shown=not further) as status:
        status.phase("importing PyTorch, Lightning, Optuna and MLflow")
        config = {**config, "workers": worker_count(config)}
        return _search(config, space, n_trials, initial_params, deadline, status, task, further=further)


def _trials(config: Mapping[str, Any], space: Space) -> tuple[int | None, Sequence[Mapping[str, Any]]]:
    """The total of trials, None for no limit, and the parameters of the first ones."""
    if config["n_trials"] is None:
        every = list(space.grid())
        random.Random(config["seed"]).shuffle(every)  # an interrupted run then has a random subset
        return len(every), every
    # The smallest architecture of each mechanism is fast to train and is at the cheap end of the front.
    smallest = list(space.smallest())
    if config["n_trials"] == "auto":
        limited = config["budget"] is not None or config["patience"] is not None
        return (None if limited else DEFAULT_TRIALS), smallest
    return config["n_trials"], smallest


def _patience(value: int | str | None) -> Patience | None:
    from search.budget.patience import Patience

    if value is None:
        return None
    return Patience(trials=value) if isinstance(value, int) else Patience(seconds=parse_duration(value, "patience"))


def _search(
    config: Mapping[str, Any],
    space: Space,
    n_trials: int | None,
    initial_params: Sequence[Mapping[str, Any]],
    deadline: Deadline,
    status: StatusLine,
    task: Task | None,
    *,
    further: bool,
) -> int:
    """Everything that needs heavy imports; returns the exit code."""
    from search.assemble import build_search
    from search.budget.reserve import closing_s, remeasuring_s
    from search.costs.remeasure import remeasure
    from search.report.baselines import describe_baselines
    from search.report.console import ConsoleReporter
    from search.worker import RepeatedFailureError, Stopped, work

    deadline.reserve_s = closing_s(0.0)
    built = build_search(config, space, initial_params, task=task, deadline=deadline, phase=status.phase)
    store, search, tracking = built.store, built.search, built.tracking
    reporter = ConsoleReporter(
        search.objectives,
        n_trials,
        space.dimension_names(),
        built.baselines,
        measuring_s=built.measuring_s,
        status=status,
    )
    tracking_s = 0.0

    def ended(trial: Record) -> None:
        nonlocal tracking_s
        records, before = store.records(), time.monotonic()
        reporter.trial_ended(trial, records)
        tracking.log(trial.number, records)
        tracking_s = max(tracking_s, time.monotonic() - before)
        deadline.reserve_s = closing_s(tracking_s) + remeasuring_s(records, search.objectives)

    workers = config["workers"]
    if not further:
        if built.baselines:
            reporter.print(describe_baselines(built.baselines, search.objectives))
        for note in built.notes:
            reporter.print(note)
        if workers > 1:
            reporter.print(f"{workers} workers run trials side by side (workers=1 for one).")
    code, why, records = 0, "", store.records()
    deadline.reserve_s = closing_s(tracking_s) + remeasuring_s(records, search.objectives)
    reporter.update_status(records)
    try:
        grace_s, patience = config["storage"]["grace_s"], _patience(config["patience"])
        with WorkerProcesses(config, 0 if further else workers - 1, deadline, reporter.print_ansi) as others:
            why = work(store, search, n_trials, reporter, ended, grace_s=grace_s, patience=patience)
            if further:
                return 0
            reporter.print(f"The run ends: {why}.")
            others.finish()
        if deadline.total_left_s() < closing_s(tracking_s):
            reporter.print("The latencies of the front are not measured again, as no time is left.")
        else:
            with reporter.remeasuring():
                remeasure(store, built.costs, search.objectives)
    except Stopped as stop:
        code, why = 128 + stop.signal, f"it was interrupted ({stop.signal.name})"
        reporter.print(f"{stop.signal.name}: the running trial was requeued; the same command continues the study.")
    except RepeatedFailureError as error:
        code, why = 1, str(error)
        reporter.print(why)
    if further:
        return code
    store.write_run_end(why)
    records = store.records()
    reporter.print_front(records)
    status.text = lambda: "finishing tracking"
    tracking.finish(records, why)
    reporter.print_seconds(deadline.elapsed_s(), workers=workers)
    if tracking.ui_command():
        reporter.print(f"See every trial and the front: {tracking.ui_command()}")
    if tracking.url():
        reporter.print(f"The study in MLflow: {tracking.url()}")
    return code


if __name__ == "__main__":
    main(used_s=time.process_time())  # the CPU-seconds of Python's start and of the imports above
