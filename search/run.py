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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spaces.dimensions import ConfigError
from spaces.space import Space

if TYPE_CHECKING:
    from search.records import Record

CONF = Path(__file__).parents[1] / "conf"
BAD_INPUT = 2  # exit code; Ctrl-C and SIGTERM end with 128 + the signal's number, as shells expect
COSTS = ("latency_ms", "parameters", "flops", "memory_mb")
GROUPS = ("space", "task", "sampler", "pruner", "latency", "storage", "tracking")
KEYS = ("study", "n_trials", "seed", "costs", "limits", "checkpoints")


def main() -> None:
    """Run, answering bad input with a message and exit code 2."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # or Hydra would end the process before we can say it in our words
    try:
        _composed()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_refuse(_composition_error(error)))
    except KeyboardInterrupt:  # while trials run, run() handles it
        sys.exit(128 + signal.SIGINT)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _composed(config: DictConfig) -> None:
    if "space" not in config:
        names = ", ".join(GlobalHydra.instance().config_loader().get_group_options("space"))
        sys.exit(_refuse(f"Name a search space: python -m search.run +space=nlp (there are {names})"))
    tree: Any = OmegaConf.to_container(config, resolve=True)
    choices = HydraConfig.get().runtime.choices
    tree["study"] = tree.get("study") or f"{choices['space']}-{choices['task']}"
    try:
        code = run(tree)
    except ConfigError as error:
        code = _refuse(str(error))
    if code:
        sys.exit(code)


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)  # noqa: T201
    return BAD_INPUT


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
    check(config)
    space = Space(config["space"])

    from search.assemble import join
    from search.display import Display
    from search.retime import retime
    from search.trials import records
    from search.worker import RepeatedFailureError, Stopped, work

    if config["n_trials"] is None:
        everything = list(space.grid())
        random.Random(config["seed"]).shuffle(everything)  # so that an interrupted run has seen a bit of everything
        n_trials, beginnings = len(everything), everything
    else:
        # Each mechanism at its smallest is cheap to train and marks the cheap end of the front.
        n_trials, beginnings = config["n_trials"], list(space.smallest())
    study, search, tracking, measuring_s = join(config, space, beginnings)
    display = Display(search.objectives, n_trials, space.places(), measuring_s=measuring_s)

    def ended(trial: Record) -> None:
        everyone = records(study)
        display.ended(trial, everyone)
        tracking.log(trial.number, everyone)

    code = 0
    with display:
        display.summarise(records(study))
        try:
            work(study, search, n_trials, display, ended, grace_s=config["storage"]["grace_s"])
            with display.measuring_again():
                retime(study, search)
        except Stopped as stop:
            code = 128 + stop.signal
            display.say(f"{stop.signal.name}: the running trial was put back; the same command goes on from here.")
        except RepeatedFailureError as error:
            code = 1
            display.say(str(error))
    everyone = records(study)
    display.show_front(everyone)
    tracking.finish(everyone)
    display.show_seconds(time.perf_counter() - began)
    if tracking.command():
        display.say(f"See every trial and the front: {tracking.command()}")
    if tracking.page():
        display.say(f"The study's page then: {tracking.page()}")
    return code


def default_storage() -> str:
    """The address of the database that holds the studies of a run that isn't told otherwise."""
    return str(OmegaConf.select(OmegaConf.load(CONF / "storage" / "sqlite.yaml"), "url"))


def check(config: Mapping[str, Any]) -> None:
    """Refuse unknown keys and values out of range, all at once."""
    problems = [
        f"{name}: unknown; there are {', '.join((*GROUPS, *KEYS))}" for name in config if name not in (*GROUPS, *KEYS)
    ]
    n_trials, seed, costs, limits = (config[name] for name in ("n_trials", "seed", "costs", "limits"))
    if n_trials is not None and (isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1):
        problems.append(f"n_trials: {n_trials!r}; write a whole number from 1, or null for every architecture once")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"seed: {seed!r}; write a whole number from 0")
    if not isinstance(costs, Sequence) or isinstance(costs, str) or not costs or len(set(costs)) < len(costs):
        problems.append(f"costs: {costs!r}; write a list such as [latency_ms]")
    else:
        problems += [f"costs: {name!r} is none; there are {', '.join(COSTS)}" for name in costs if name not in COSTS]
    for name, limit in limits.items():
        if name not in COSTS:
            problems.append(f"limits.{name}: no such cost; there are {', '.join(COSTS)}")
        elif limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0):
            problems.append(f"limits.{name}: {limit!r}; write a number above 0, or null for no limit")
    if problems:
        raise ConfigError("\n".join(problems))


if __name__ == "__main__":
    main()
