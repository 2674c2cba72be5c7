"""The part of ``search.front`` that confirms a front: trains, stores and prints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from rich.markup import escape
from rich.table import Table

from search.compress.prepare import stored_parent
from search.confirm.statistics import Confirmed, confirmed
from search.confirm.training import Setting, repeat
from search.costs.exclusive import cores
from search.report.status import format_seconds, stdout_console
from search.study.confirmations import Repetition, read_repetitions
from search.study.records import Objectives, Record, front
from search.study.storage import close_storage, open_storage
from search.study.stored import load_stored
from search.training.device import Device, select_device
from spaces.architecture import describe
from spaces.dimensions import ConfigError
from spaces.instantiate import instantiate
from spaces.tasks import Task


def confirm(url: str, name: str, count: int) -> None:
    """Train the members of a stored front ``count`` times with fresh seeds, and print what that tells.

    On a CPU each core trains one at a time.

    Raises:
        ConfigError: there is no such study, its front is empty, or ``count`` is too small.
    """
    if count < 2:
        raise ConfigError(f"--confirm {count}: it must be at least 2, as an interval takes two trainings")
    storage = open_storage(url=url)
    try:
        stored = load_stored(storage, name)
        study, identity, objectives = stored.store.study, stored.store.identity(), stored.objectives
        members = front(stored.store.records(), objectives)
        if not members:
            raise ConfigError("the front is empty: no trial is complete")
        console = stdout_console()

        def report(number: int, seed: int, repetition: Repetition) -> None:
            console.print(escape(describe_repetition(number, seed, repetition, objectives.metric)))

        console.print(escape(_intention(members, read_repetitions(study), identity["seed"], count)))
        processes = cores() if _device(identity).accelerator == "cpu" else 1
        prepare = partial(setting_of, url, name)
        repeat(study, members, prepare, seed=identity["seed"], count=count, processes=processes, report=report)
        results = confirmed(members, read_repetitions(study), objectives)
        console.print(table(results, objectives, stored.dimensions))
        for line in verdict(results, objectives):
            console.print(escape(line))
    finally:
        close_storage(storage)


def setting_of(url: str, name: str) -> Setting:
    """The setting of a stored study's trainings."""
    storage = open_storage(url=url)
    try:
        stored = load_stored(storage, name)
        identity = stored.store.identity()
        task, device = instantiate(Task, identity["task"], "task"), _device(identity)
        return Setting(task, device, stored_parent(url, stored.store, task, device, lambda text: None))
    finally:
        close_storage(storage)


def _device(identity: Mapping[str, Any]) -> Device:
    return select_device("auto", precision=identity.get("precision", "32-true"), compile_network=False)


def describe_repetition(number: int, seed: int, repetition: Repetition, metric: str) -> str:
    """A line about a training."""
    splits = {"validation": repetition.validation, "test": repetition.test}
    found = [f"{values[metric]:.4f} on {split}" for split, values in splits.items() if metric in values]
    return f"trial {number}, seed {seed}: {metric} {', '.join(found)}"


def _intention(members: Sequence[Record], known: Mapping[int, Mapping[int, Repetition]], seed: int, count: int) -> str:
    fresh = range(seed + 1, seed + 1 + count)
    left = [(member, sum(each not in known.get(member.number, {}) for each in fresh)) for member in members]
    trainings = sum(number for _, number in left)
    seconds = sum(number * (member.cpu_seconds or [0.0])[-1] for member, number in left)
    done = count * len(members) - trainings
    return (
        f"Training {len(members)} members with {count} seeds: {trainings} trainings, of about"
        f" {format_seconds(seconds)} in all; {done} are stored already. Ctrl-C keeps what is finished."
    )


def table(results: Sequence[Confirmed], objectives: Objectives, dimensions: Collection[str]) -> Table:
    """A row per member: its costs, its metric in the search, and the means with their intervals."""
    metric = objectives.metric
    found = Table(title="Trainings with fresh seeds: mean and 95% interval", title_justify="left")
    for name in ("trial", *objectives.costs, f"{metric} in the search", "on validation", "on test", "seeds", ""):
        found.add_column(name, justify="right")
    found.add_column("architecture")
    for each in results:
        costs = [f"{each.record.costs[name]:.4g}" for name in objectives.costs]
        notes = ["lucky"] * each.is_lucky + ["off the front"] * (not each.on_front)
        notes += [] if each.tied_with is None else [f"tied with {each.tied_with}"]
        found.add_row(
            str(each.record.number),
            *costs,
            f"{each.record.metric:.4f}",
            str(each.validation),
            "" if each.test is None else str(each.test),
            str(len(each.validation.values)),
            ", ".join(notes),
            describe(each.record.architecture, dimensions),
        )
    return found


def verdict(results: Sequence[Confirmed], objectives: Objectives) -> list[str]:
    """Which members were lucky, which are tied with cheaper ones, and what is the front of the means."""
    lucky = ", ".join(str(each.record.number) for each in results if each.is_lucky)
    tied = ", ".join(f"{each.record.number} with {each.tied_with}" for each in results if each.tied_with is not None)
    left = ", ".join(str(each.record.number) for each in results if each.on_front)
    return [
        f"Lucky in the search (better than 95% of further trainings): {lucky or 'none'}.",
        f"Tied with a cheaper member (not significantly better on validation, at 5%): {tied or 'none'}.",
        f"The front of the means: {left}.",
    ]
