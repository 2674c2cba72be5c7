"""The fronts of several studies of one task beside each other, with latencies measured anew, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from optuna.storages import BaseStorage
from rich.markup import escape
from rich.table import Table

from search.costs.measured import MeasuredCosts
from search.costs.meter import Meter
from search.pareto import non_dominated
from search.report.status import stdout_console
from search.study.records import Objectives, Record, front
from search.study.stored import load_stored
from spaces.architecture import describe
from spaces.dimensions import ConfigError
from spaces.instantiate import instantiate
from spaces.tasks import Task


@dataclass(frozen=True)
class Member:
    """A member of the front of a study."""

    study: str
    record: Record
    architecture: str
    costs: tuple[float, ...]


def show(storage: BaseStorage, names: Sequence[str]) -> None:
    """Print the members of the fronts by ascending cost, and which of them are on the front of all.

    Args:
        storage: of the studies.
        names: of the studies.

    Raises:
        ConfigError: there is no such study, or they are of different tasks or objectives.
    """
    studies = {name: load_stored(storage, name) for name in names}
    first = studies[names[0]]
    identity, data, objectives = first.store.identity(), first.store.data(), first.objectives
    for name, stored in studies.items():
        if stored.objectives.costs != objectives.costs or stored.objectives.metric != objectives.metric:
            raise ConfigError(f"study {name!r} has other objectives than {names[0]!r}")
        if stored.store.data().get("fingerprint") != data.get("fingerprint"):
            raise ConfigError(f"study {name!r} has other data than {names[0]!r}")
    torch.set_num_threads(1)
    task = instantiate(Task, identity["task"], "task")
    measured = MeasuredCosts(task, instantiate(Meter, identity["latency"], "latency"))
    found = [(name, record) for name, stored in studies.items() for record in front(stored.store.records(), objectives)]
    if not found:
        raise ConfigError("the fronts are empty: no trial is complete")
    timings = measured.timings([dict(record.architecture) for _, record in found])
    members = []
    for (name, record), timing in zip(found, timings, strict=True):
        costs = {**record.costs, "latency_ms": timing.ms}
        architecture = describe(record.architecture, studies[name].dimensions)
        members.append(Member(name, record, architecture, tuple(costs[cost] for cost in objectives.costs)))
    stdout_console().print(table(members, objectives))
    for line in summary(members, names, objectives):
        stdout_console().print(escape(line))


def on_front(members: Sequence[Member], objectives: Objectives) -> list[bool]:
    """Whether each is on the front of all."""
    points = [(objectives.loss(each.record.metric or 0.0), *each.costs) for each in members]
    return [bool(each) for each in non_dominated(points)]


def table(members: Sequence[Member], objectives: Objectives) -> Table:
    """A row per member by ascending cost; those on the front of all have a mark."""
    found = Table(title="The fronts, with latencies measured side by side", title_justify="left")
    for column in ("", "study", "trial", *objectives.costs, objectives.metric, "on test", "architecture"):
        found.add_column(column)
    rows = sorted(zip(members, on_front(members, objectives), strict=True), key=lambda row: row[0].costs)
    for each, kept in rows:
        test = each.record.test_metrics.get(objectives.metric)
        numbers = [f"{value:.4g}" for value in each.costs]
        metrics = [f"{each.record.metric:.4f}", "" if test is None else f"{test:.4f}"]
        place = ["•" if kept else "", escape(each.study), str(each.record.number)]
        found.add_row(*place, *numbers, *metrics, escape(each.architecture))
    return found


def summary(members: Sequence[Member], names: Sequence[str], objectives: Objectives) -> list[str]:
    """How many points each study has on the front of all."""
    kept = [each.study for each, on in zip(members, on_front(members, objectives), strict=True) if on]
    counts = ", ".join(f"{kept.count(name)} of {name}" for name in names)
    return [f"The front of all (•) has {len(kept)} points: {counts}."]
