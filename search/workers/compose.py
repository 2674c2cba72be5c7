"""A run from the arguments of a command: composes the configuration, and checks it.

torch, Lightning, Optuna and MLflow are imported only afterwards, so that ``--help`` and errors appear at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from search.budget.scale import (
    check_scale,
    has_scales,
    keep_given_input,
    names_own_data,
    register_resolvers,
    with_default_space,
)
from search.config import CONF, option_names, refuse
from search.config.composition import check_command_line, composition_error, plain
from search.config.schema import AUTO, validate_config
from search.workers.run import run
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from spaces.tasks import Task


def run_command(arguments: Sequence[str], command: Sequence[str], *, used_s: float = 0.0) -> int:
    """Run; return the exit code, which is 2 after a message about invalid input.

    Args:
        arguments: of Hydra.
        command: the words that the user typed after ``python -m``, to be stored with the study.
        used_s: seconds of the run that have passed before.
    """
    start = time.monotonic() - used_s
    try:
        composed = _compose(arguments)
        return 0 if composed is None else _run_composed(*composed, start, command)
    except ConfigError as error:
        return refuse(error)
    except KeyboardInterrupt:  # run() handles it while trials run
        return 128 + signal.SIGINT


def _compose(arguments: Sequence[str]) -> tuple[DictConfig, HydraConf] | None:
    """The composed configuration and Hydra's own; None if Hydra has printed something instead, such as the help.

    Raises:
        ConfigError: it cannot be composed.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise Hydra prints the error itself and exits
    register_resolvers()
    check_command_line(arguments)
    completed = with_default_space(arguments)
    if completed != arguments:
        print(f"No space is named: {completed[-1]} suits the task.", file=sys.stderr)  # noqa: T201
    found: list[tuple[DictConfig, HydraConf]] = []

    # The run begins after Hydra has returned, since Hydra prints all arguments if an exception passes through it.
    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def keep(config: DictConfig) -> None:
        found.append((config, HydraConfig.get()))

    sys.argv[1:] = completed
    try:
        keep()
    except Exception as error:  # of many kinds, since files of the user's may contain anything
        raise ConfigError(composition_error(error, completed)) from error
    return found[0] if found else None


def _run_composed(config: DictConfig, hydra_config: HydraConf, start: float, command: Sequence[str]) -> int:
    choices = hydra_config.runtime.choices
    if "space" not in config:
        raise ConfigError(
            f"Name a search space: python -m search.run +space=nlp (known: {', '.join(option_names('space'))})"
        )
    validate_config(plain(config))
    space, task_name = (choices.get(group, "own") for group in ("space", "task"))  # own: written without an option
    check_scale(config, space)
    given: Any = OmegaConf.to_container(OmegaConf.create(hydra_config.overrides.task), resolve=False)
    keep_given_input(config, given)
    chooses = config.scale == AUTO and has_scales(config) and names_own_data(config.task)
    task = _choose_scale(config) if chooses else None
    tree = plain(config)
    tree["study"] = tree["study"] or f"{space}-{task_name}"
    return run(tree, used_s=time.monotonic() - start, task=task, command=command)


def _choose_scale(config: DictConfig) -> Task | None:
    """Set the scale that suits the data; return the task with its data, None if its settings depend on the scale."""
    print("Reading the data to choose a scale", file=sys.stderr)  # noqa: T201
    from search.budget.scale import suitable_scale
    from search.training.device import select_device
    from spaces.instantiate import instantiate
    from spaces.tasks import Task

    settings = OmegaConf.to_container(config.task, resolve=True)
    task = instantiate(Task, settings, "task")
    device = select_device(config.device, precision=config.precision, compile_network=config["compile"])
    try:
        config.scale, why = suitable_scale(task, gpu=device.accelerator != "cpu")
    except ValueError as error:
        raise ConfigError(f"task: {error}") from error
    print(f"{why} (scale=... sets another)", file=sys.stderr)  # noqa: T201
    return task if OmegaConf.to_container(config.task, resolve=True) == settings else None
