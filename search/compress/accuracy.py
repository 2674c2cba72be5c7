"""How well sums over single replacements predict the damage and the latency of whole networks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from optuna.storages import BaseStorage
from rich.markup import escape
from rich.table import Table
from scipy.stats import spearmanr

from search.compress.library import Library
from search.compress.options import Options, Part, Replacement
from search.compress.prediction import Setting, measure_settings, predict
from search.compress.prepare import latencies_by, stored_parent
from search.costs.measured import MeasuredCosts
from search.costs.meter import Meter
from search.report.status import stdout_console
from search.study.records import Objectives, Record
from search.study.stored import load_stored
from search.training.device import Device
from spaces.architecture import describe
from spaces.dimensions import ConfigError
from spaces.instantiate import instantiate
from spaces.space import Space
from spaces.tasks import Task

MIN_TRIALS = 3  # for a rank correlation


class Mix(NamedTuple):
    """A network with predicted and measured damage, in nats, and latency."""

    name: str
    predicted_damage: float
    damage: float
    predicted_ms: float
    ms: float


def show(url: str, storage: BaseStorage, name: str, *, mixes: int, seed: int) -> None:
    """Print the library of a stored study, and how its predictions compare with measurements.

    Args:
        url: of the storage.
        storage: the same, opened.
        name: of the study.
        mixes: random networks whose damage before any further training, and latency, are measured.
        seed: of their choice.

    Raises:
        ConfigError: there is no such study, or it compresses nothing.
    """
    stored = load_stored(storage, name)
    identity = stored.store.identity()
    space = Space(identity["space"])
    if space.compression is None:
        raise ConfigError(f"study {name!r}: its space has no section compression, such as that of +space=pretrained")
    torch.set_num_threads(1)
    console, task = stdout_console(), instantiate(Task, identity["task"], "task")
    costs = MeasuredCosts(task, instantiate(Meter, identity["latency"], "latency"))

    def report(text: str) -> None:
        console.print(escape(text), style="dim")

    options, library = Options(space), stored_parent(url, stored.store, task, Device(), report)
    assert isinstance(library, Library)
    settings = measure_settings(options, library, latencies_by(costs), report)
    console.print(library_table(options, library, settings))
    console.print(settings_table(settings))
    complete = [record for record in stored.store.records() if record.metric is not None]
    if len(complete) >= MIN_TRIALS:
        damage, latency = of_trials(complete, stored.objectives, options, library, settings)
        console.print(
            f"{len(complete)} complete trials, Spearman's rank correlation: {damage:.3f} of the predicted damage before"
            f" training with {stored.objectives.metric} after it, {latency:.3f} of predicted with measured latency"
        )
    if mixes:
        measured = list(measure_mixes(options, library, settings, costs, count=mixes, seed=seed))
        console.print(mixes_table(measured))
        damage = rank_correlation([each.predicted_damage for each in measured], [each.damage for each in measured])
        latency = rank_correlation([each.predicted_ms for each in measured], [each.ms for each in measured])
        console.print(
            f"{mixes} random networks without further training, Spearman's rank correlation of predicted with measured:"
            f" {damage:.3f} of the damage, {latency:.3f} of the latency"
        )


def of_trials(
    complete: Sequence[Record], objectives: Objectives, options: Options, library: Library, settings: Sequence[Setting]
) -> tuple[float, float]:
    """The rank correlations of predicted damages with losses, and of predicted with measured latencies."""
    sums = [
        predict(options, library, _setting_of(record, settings), options.chosen(record.architecture))
        for record in complete
    ]
    losses = [objectives.loss(record.metric) for record in complete if record.metric is not None]
    ms = [record.costs["latency_ms"] for record in complete]
    return (
        rank_correlation([each.damage for each in sums], losses),
        rank_correlation([each.latency_ms for each in sums], ms),
    )


def _setting_of(record: Record, settings: Sequence[Setting]) -> Setting:
    """The combination of the global dimensions that a trial has."""
    return next(setting for setting in settings if setting.parameters.items() <= record.parameters.items())


def rank_correlation(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(predicted, measured).statistic)


def random_mix(options: Options, draw: random.Random) -> list[Replacement]:
    """Replacements of sub-blocks, whose number is uniformly distributed."""
    sub_blocks = sorted({(each.block, each.part) for each in options.replacements()})
    chosen = draw.sample(sub_blocks, draw.randint(1, len(sub_blocks)))
    return [Replacement(block, part, draw.choice(options.of_block(part, block)[1:])) for block, part in sorted(chosen)]


def measure_mixes(
    options: Options, library: Library, settings: Sequence[Setting], costs: MeasuredCosts, *, count: int, seed: int
) -> Iterator[Mix]:
    """Random networks in random combinations of the global dimensions."""
    draw, dimensions = random.Random(seed), options.space.dimension_names()
    for _ in range(count):
        setting, replacements = draw.choice(settings), random_mix(options, draw)
        architecture = options.architecture(options.parameters(replacements, setting.parameters))
        expected = predict(options, library, setting, replacements)
        (timing,) = costs.timings([architecture])
        damage = library.damage_of(architecture)
        yield Mix(describe(architecture, dimensions), expected.damage, damage, expected.latency_ms, timing.ms)


def library_table(options: Options, library: Library, settings: Sequence[Setting]) -> Table:
    """A row per option, a column per block: the damage of the untrained and of the trained replacement."""
    blocks = (f"block {block}" for block in range(options.depth))
    found = _table("Damage of single replacements (nats), untrained → used", "option", *blocks, "adds ms")
    kinds: dict[tuple[Part, Any], None] = dict.fromkeys((each.part, each.option) for each in options.replacements())
    for part, option in kinds:
        cells = []
        for block in range(options.depth):
            entry = library.entry(Replacement(block, part, option))
            cells.append("" if entry is None else f"{entry.untrained_damage:.3f} → {entry.damage:.3f}")
        added = [setting.added_ms[part, option] for setting in settings]
        found.add_row(f"{part} {option}", *cells, f"{min(added):.2f} to {max(added):.2f}")
    return found


def settings_table(settings: Sequence[Setting]) -> Table:
    """A row per combination of the global dimensions."""
    found = _table("The whole network by global dimensions", "dimensions", "damage", "ms")
    for each in settings:
        names = " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in each.parameters.items())
        found.add_row(names, f"{each.damage:.3f}", f"{each.latency_ms:.2f}")
    return found


def mixes_table(mixes: Sequence[Mix]) -> Table:
    """A row per network."""
    found = _table("Random networks, predicted → measured", "network", "damage", "ms")
    for each in mixes:
        damage = f"{each.predicted_damage:.3f} → {each.damage:.3f}"
        found.add_row(escape(each.name), damage, f"{each.predicted_ms:.2f} → {each.ms:.2f}")
    return found


def _table(title: str, *columns: str) -> Table:
    found = Table(title=title, title_justify="left")
    for column in columns:
        found.add_column(column)
    return found
