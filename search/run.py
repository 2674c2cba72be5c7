"""The command that searches: compose and check a configuration, open the study, run trials, print the front.

``python -m search.run +space=nlp``; ``--help`` lists all options. torch, Lightning, Optuna and MLflow are imported only
after the configuration was composed, so that ``--help`` and errors appear at once.
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
    """Run; invalid input ends with a message and exit code 2."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise Hydra prints the error itself and exits
    try:
        _run_composed()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(_composition_error(error)))
    except KeyboardInterrupt:  # run() handles it while trials run
        sys.exit(128 + signal.SIGINT)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _run_composed(config: DictConfig) -> None:
    if "space" not in config:
        names = ", ".join(GlobalHydra.instance().config_loader().get_group_options("space"))
        sys.exit(refuse(f"Name a search space: python -m search.run +space=nlp (known: {names})"))
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


def run(config: Mapping[str, Any]) -> int:
    """Search with ``config``, the composed configuration as plain values, and return the exit code.

    Raises:
        ConfigError: the configuration is invalid; nothing has been written.
    """
    start = time.perf_counter()
    validate_config(config)
    space = Space(config["space"])

    from search.assemble import build_search
    from search.costs.remeasure import remeasure
    from search.report.baselines import describe_baselines
    from search.report.console import ConsoleReporter
    from search.worker import RepeatedFailureError, Stopped, work

    if config["n_trials"] is None:
        initial_params = list(space.grid())
        random.Random(config["seed"]).shuffle(initial_params)  # an interrupted run then has a random subset
        n_trials = len(initial_params)
    else:
        # The smallest architecture of each mechanism is fast to train and is at the cheap end of the front.
        n_trials, initial_params = config["n_trials"], list(space.smallest())
    built = build_search(config, space, initial_params)
    store, search, tracking = built.store, built.search, built.tracking
    reporter = ConsoleReporter(
        search.objectives, n_trials, space.dimension_names(), built.baselines, measuring_s=built.measuring_s
    )

    def ended(trial: Record) -> None:
        records = store.records()
        reporter.trial_ended(trial, records)
        tracking.log(trial.number, records)

    if built.baselines:
        reporter.print(describe_baselines(built.baselines, search.objectives))
    code = 0
    with reporter:
        reporter.update_status(store.records())
        try:
            work(store, search, n_trials, reporter, ended, grace_s=config["storage"]["grace_s"])
            with reporter.remeasuring():
                remeasure(store, built.costs, search.objectives)
        except Stopped as stop:
            code = 128 + stop.signal
            reporter.print(f"{stop.signal.name}: the running trial was requeued; the same command continues the study.")
        except RepeatedFailureError as error:
            code = 1
            reporter.print(str(error))
    records = store.records()
    reporter.print_front(records)
    tracking.finish(records)
    reporter.print_seconds(time.perf_counter() - start)
    if tracking.ui_command():
        reporter.print(f"See every trial and the front: {tracking.ui_command()}")
    if tracking.url():
        reporter.print(f"The study in MLflow: {tracking.url()}")
    return code


if __name__ == "__main__":
    main()
