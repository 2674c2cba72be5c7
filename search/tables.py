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

import numpy as np

from search.config import default_storage, refuse
from search.replay.table import Table, write
from spaces.architecture import key, network_key
from spaces.dimensions import ConfigError


def gather(name: str, studies: Sequence[str], storage: str) -> Table:
    """A table of the architectures that are complete in all of ``studies``.

    Raises:
        ConfigError: a study isn't there, they differ in more than their seed, or nothing is complete in all of them.
    """
    import optuna

    from search.study.trials import counted, records
    from spaces.build import build, instantiate

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    worlds, identities, parameters = [], [], {}
    for study_name in studies:
        try:
            study = optuna.load_study(study_name=study_name, storage=storage)
        except KeyError:
            raise ConfigError(f"{study_name}: there is no such study in {storage}") from None
        identities.append({**json.loads(study.user_attrs["identity"]), "seed": None})
        complete = {key(record.architecture): record for record in records(study) if record.state == "complete"}
        worlds.append(complete)
        parameters.update(
            {
                key(json.loads(t.user_attrs["architecture"])): t.params
                for t in counted(study)
                if "architecture" in t.user_attrs
            }
        )
    if any(identity != identities[0] for identity in identities):
        raise ConfigError(f"{', '.join(studies)}: they differ in more than the seed; a table needs the same space")
    common = sorted(set.intersection(*(set(world) for world in worlds)))
    if not common:
        raise ConfigError(f"{', '.join(studies)}: no architecture is complete in all of them")
    task = instantiate(identities[0]["task"], "task")
    meter = instantiate({"_target_": "search.costs.latency.MeasuredLatency"}, "latency")
    firsts = [worlds[0][each] for each in common]
    networks = {network_key(each.architecture): each.architecture for each in firsts}
    built = [build(dict(architecture), task) for architecture in networks.values()]
    measured = dict(zip(networks, meter.measure_all(built, task), strict=True))
    speeds = [
        float(np.median([np.diff([0.0, *world[each].details["cpu_seconds"]]) for world in worlds])) for each in common
    ]
    return Table(
        name=name,
        space=identities[0]["space"],
        metric=task.metric,
        direction=task.direction,
        chance=task.chance,
        best=task.best,
        architectures=[dict(each.architecture) for each in firsts],
        parameters=[parameters[each] for each in common],
        costs=[{**each.costs, "latency_ms": round(measured[network_key(each.architecture)].ms, 5)} for each in firsts],
        curves=[[[round(metric, 5) for _, metric in world[each].curve] for each in common] for world in worlds],
        seconds=[round(speed, 5) for speed in speeds],
    )


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
