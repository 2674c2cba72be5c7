"""The command that searches: compose and check a configuration, open the study, run trials, print the front.

``python -m search.run +space=nlp``; ``--help`` lists all options. torch, Lightning, Optuna and MLflow are imported only
after the configuration was composed, so that ``--help`` and errors appear at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from search.budget.scale import (
    AUTO,
    check_scale,
    has_scales,
    keep_given_input,
    names_own_data,
    register_resolvers,
    with_default_space,
)
from search.config import CONF, check_choices, refuse
from search.workers.run import run
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from spaces.tasks import Task


def main(*, used_s: float = 0.0) -> None:
    """Run; invalid input ends with a message and exit code 2. ``used_s`` seconds of the run have passed before."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise Hydra prints the error itself and exits
    start = time.monotonic() - used_s
    register_resolvers()
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
    except InterpolationResolutionError as error:  # the lines after the first are about OmegaConf's own types
        code = refuse(str(error).splitlines()[0].removeprefix("ConfigError raised while resolving interpolation: "))
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


if __name__ == "__main__":
    main(used_s=time.process_time())  # the CPU-seconds of Python's start and of the imports above
