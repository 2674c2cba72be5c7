"""The command that writes recorded tables: all architectures of a small space fully trained, for replays.

``python -m search.tables FILE STUDY...`` writes one from studies of the same space with different seeds::

    python -m search.run +space=mine n_trials=null pruner=none latency=flops seed=0 study=mine-0
    python -m search.run +space=mine n_trials=null pruner=none latency=flops seed=1 study=mine-1
    python -m search.tables mine.json.gz mine-0 mine-1

Latencies are measured again, all networks in turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.config import add_storage_option, default_storage, refuse
from search.replay.table import Table, write
from spaces.architecture import key
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from search.study.store import TrialStore


def build_table(name: str, stores: Sequence[TrialStore]) -> Table:
    """A table of the architectures that are complete in all studies.

    Raises:
        ConfigError: the studies differ in more than the seed, or have no complete architecture in common.
    """
    from search.costs.latency import MeasuredLatency
    from search.costs.measured import MeasuredCosts
    from search.study.records import State
    from spaces.instantiate import instantiate
    from spaces.tasks import Task

    names = ", ".join(store.study.study_name for store in stores)
    identities = [{**store.identity(), "seed": None} for store in stores]
    if any(identity != identities[0] for identity in identities):
        raise ConfigError(f"{names}: the studies differ in more than the seed; a table needs the same settings")
    runs = [
        {key(record.architecture): record for record in store.records() if record.state == State.COMPLETE}
        for store in stores
    ]
    common = sorted(set.intersection(*(set(run) for run in runs)))
    if not common:
        raise ConfigError(f"{names}: no architecture is complete in all of these studies")
    task = instantiate(Task, identities[0]["task"], "task")
    records = [runs[0][each] for each in common]
    architectures = [dict(record.architecture) for record in records]
    timings = MeasuredCosts(task, MeasuredLatency()).timings(architectures)
    epoch_s = [float(np.median([np.diff([0.0, *run[each].cpu_seconds]) for run in runs])) for each in common]
    return Table(
        name=name,
        space=identities[0]["space"],
        metric=task.metric,
        direction=task.direction,
        chance=task.objective_chance,
        best=task.best,
        architectures=architectures,
        parameters=[stores[0].parameters(record.number) for record in records],
        costs=[
            {**record.costs, "latency_ms": round(timing.ms, 5)} for record, timing in zip(records, timings, strict=True)
        ],
        curves=[[[round(metric, 5) for _, metric in run[each].curve] for each in common] for run in runs],
        seconds=[round(seconds, 5) for seconds in epoch_s],
    )


def main() -> None:
    """Write a table."""
    parser = argparse.ArgumentParser(prog="python -m search.tables", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="such as mine.json.gz")
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="fully trained studies of one space")
    add_storage_option(parser)
    given = parser.parse_args()

    from search.study.storage import load_study, open_read_only
    from search.study.store import TrialStore

    try:
        with open_read_only(given.storage or default_storage()) as storage:
            stores = [TrialStore(load_study(storage, study)) for study in given.studies]
            table = build_table(given.file.name.split(".")[0], stores)
    except ConfigError as error:
        sys.exit(refuse(error))
    write(table, given.file)
    counts = f"{len(table.architectures)} architectures trained with {len(table.curves)} seeds"
    print(f"{given.file}: {counts}")  # noqa: T201


if __name__ == "__main__":
    main()
