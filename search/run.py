"""The command: compose a space, check it, join the study, work, show the front.

``python -m search.run +space=nlp``; ``--help`` lists what can be chosen. Whatever needs torch, Lightning, Optuna or
MLflow is imported after the composition was found good, so that help and errors answer at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from search.config import CONF, refuse, validate_config
from spaces.dimensions import ConfigError
from spaces.space import Space

if TYPE_CHECKING:
    from search.study.records import Record


def main() -> None:
    """Run, answering bad input with a message and exit code 2."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # or Hydra would end the process before we can say it in our words
    try:
        _composed()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(_composition_error(error)))
    except KeyboardInterrupt:  # while trials run, run() handles it
        sys.exit(128 + signal.SIGINT)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _composed(config: DictConfig) -> None:
    if "space" not in config:
        names = ", ".join(GlobalHydra.instance().config_loader().get_group_options("space"))
        sys.exit(refuse(f"Name a search space: python -m search.run +space=nlp (there are {names})"))
    tree: Any = OmegaConf.to_container(config, resolve=True)
    choices = HydraConfig.get().runtime.choices
    tree["study"] = tree.get("study") or f"{choices['space']}-{choices['task']}"
    try:
        code = run(tree)
    except ConfigError as error:
        code = refuse(str(error))
    if code:
        sys.exit(code)


def _composition_error(error: BaseException) -> str:
    """Hydra's message; for a key that isn't there, with those that are."""
    cause: BaseException | None = error
    while cause is not None:
        parent, place = getattr(cause, "parent_node", None), getattr(cause, "full_key", None)
        if isinstance(parent, DictConfig) and place and "not in struct" in str(cause):
            there = ", ".join(map(str, parent))
            return f"{place}: there is no such key; there are {there}\nto add it nonetheless: +{place}=VALUE"
        cause = cause.__cause__
    return str(error)


def run(config: Mapping[str, Any]) -> int:
    """Search as ``config`` says: the composed configuration as plain values, its study named.

    Returns:
        The process's exit code.

    Raises:
        ConfigError: something in it can't be; nothing was written then.
    """
    began = time.perf_counter()
    validate_config(config)
    space = Space(config["space"])

    from search.assemble import build_search
    from search.costs.remeasure import remeasure
    from search.report.console import Display
    from search.worker import RepeatedFailureError, Stopped, work

    if config["n_trials"] is None:
        initial_params = list(space.grid())
        random.Random(config["seed"]).shuffle(initial_params)  # an interrupted run has then seen a bit of everything
        n_trials = len(initial_params)
    else:
        # Each mechanism at its smallest is cheap to train and marks the cheap end of the front.
        n_trials, initial_params = config["n_trials"], list(space.smallest())
    built = build_search(config, space, initial_params)
    store, search, tracking = built.store, built.search, built.tracking
    display = Display(search.objectives, n_trials, space.dimension_names(), measuring_s=built.measuring_s)

    def ended(trial: Record) -> None:
        records = store.records()
        display.ended(trial, records)
        tracking.log(trial.number, records)

    code = 0
    with display:
        display.summarise(store.records())
        try:
            work(store, search, n_trials, display, ended, grace_s=config["storage"]["grace_s"])
            with display.measuring_again():
                remeasure(store, built.costs, search.objectives)
        except Stopped as stop:
            code = 128 + stop.signal
            display.say(f"{stop.signal.name}: the running trial was queued again; the same command continues.")
        except RepeatedFailureError as error:
            code = 1
            display.say(str(error))
    records = store.records()
    display.show_front(records)
    tracking.finish(records)
    display.show_seconds(time.perf_counter() - began)
    if tracking.command():
        display.say(f"See every trial and the front: {tracking.command()}")
    if tracking.page():
        display.say(f"The study's page then: {tracking.page()}")
    return code


if __name__ == "__main__":
    main()
