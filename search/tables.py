"""Recorded tables: every architecture of a small space fully trained, so that strategies can be replayed over them.

``python -m search.tables FILE STUDY...`` writes one from studies of the same space that differ in their seed alone::

    python -m search.run +space=mine n_trials=null pruner=none latency=flops seed=0 study=mine-0
    python -m search.run +space=mine n_trials=null pruner=none latency=flops seed=1 study=mine-1
    python -m search.tables mine.json.gz mine-0 mine-1

Latencies are measured then, all networks taking turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.config import default_storage, refuse
from search.replay.table import Table, write
from spaces.architecture import key, network_key
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    import optuna


def gather(name: str, studies: Sequence[str], storage: str) -> Table:
    """A table of the architectures that are complete in all of ``studies``.

    Raises:
        ConfigError: a study isn't there, they differ in more than their seed, or nothing is complete in all of them.
    """
    import optuna

    from search.costs.latency import MeasuredLatency
    from search.costs.measured import MeasuredCosts
    from search.study.records import State
    from search.study.store import TrialStore
    from spaces.build import instantiate

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stores = [TrialStore(_load(study, storage)) for study in studies]
    identities = [{**json.loads(store.study.user_attrs["identity"]), "seed": None} for store in stores]
    if any(identity != identities[0] for identity in identities):
        raise ConfigError(f"{', '.join(studies)}: they differ in more than the seed; a table needs the same space")
    runs = [
        {key(record.architecture): record for record in store.records() if record.state == State.COMPLETE}
        for store in stores
    ]
    common = sorted(set.intersection(*(set(run) for run in runs)))
    if not common:
        raise ConfigError(f"{', '.join(studies)}: no architecture is complete in all of them")
    task = instantiate(identities[0]["task"], "task")
    firsts = [runs[0][each] for each in common]
    networks = {network_key(each.architecture): dict(each.architecture) for each in firsts}
    timings = MeasuredCosts(task, MeasuredLatency()).timings(list(networks.values()))
    ms = {network: round(timing.ms, 5) for network, timing in zip(networks, timings, strict=True)}
    speeds = [float(np.median([np.diff([0.0, *run[each].cpu_seconds]) for run in runs])) for each in common]
    return Table(
        name=name,
        space=identities[0]["space"],
        metric=task.metric,
        direction=task.direction,
        chance=task.chance,
        best=task.best,
        architectures=[dict(each.architecture) for each in firsts],
        parameters=[stores[0].parameters(each.number) for each in firsts],
        costs=[{**each.costs, "latency_ms": ms[network_key(each.architecture)]} for each in firsts],
        curves=[[[round(metric, 5) for _, metric in run[each].curve] for each in common] for run in runs],
        seconds=[round(speed, 5) for speed in speeds],
    )


def _load(study: str, storage: str) -> optuna.Study:
    import optuna

    from search.study.storage import shown

    try:
        return optuna.load_study(study_name=study, storage=storage)
    except KeyError:
        raise ConfigError(f"{study}: there is no such study in {shown(storage)}") from None


def main() -> None:
    """Write a table."""
    parser = argparse.ArgumentParser(prog="python -m search.tables", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="such as mine.json.gz")
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="fully trained studies of one space")
    parser.add_argument("--storage", default=default_storage(), help="the studies' database (default: %(default)s)")
    given = parser.parse_args()
    try:
        table = gather(given.file.name.split(".")[0], given.studies, given.storage)
    except ConfigError as error:
        sys.exit(refuse(error))
    write(table, given.file)
    print(f"{given.file}: {len(table.architectures)} architectures in {len(table.curves)} worlds")  # noqa: T201


if __name__ == "__main__":
    main()
