"""The predicted front: damages and latencies of single replacements are added up, the best sums found exactly.

For each combination of the global dimensions, such as length and quantization, it is a knapsack problem with multiple
choices: one option per sub-block. Dynamic programming over the sub-blocks keeps the sums that no other one dominates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from search.compress.library import Library
from search.compress.options import PARTS, Options, Part, Replacement
from spaces.architecture import Architecture, key

SAME_LATENCY = ("input.vocabulary", "model.sparsity")  # a smaller table is not read, nor zeros multiplied, faster
MAX_SUMS = 5000  # kept per sub-block; of more, evenly spaced ones are


class Choice(NamedTuple):
    """An option of a sub-block; None is the parent's."""

    replacement: Replacement | None
    damage: float
    latency_ms: float  # that it adds, usually below 0


class Sum(NamedTuple):
    """Replacements with their total damage and latency."""

    damage: float
    latency_ms: float
    replacements: tuple[Replacement, ...]


@dataclass(frozen=True)
class Predicted:
    """A network of the predicted front."""

    parameters: Mapping[str, Any]  # Optuna's
    damage: float  # predicted, in nats
    latency_ms: float


Scored = TypeVar("Scored", Sum, Predicted)


@dataclass(frozen=True)
class Setting:
    """A combination of the global dimensions: what it does to the whole parent, and what replacements save in it."""

    parameters: Mapping[str, Any]
    damage: float
    latency_ms: float
    added_ms: Mapping[tuple[Part, Any], float]  # by an option in one block

    def as_plain(self) -> dict[str, Any]:
        """For JSON, see :meth:`of_plain`."""
        return {**vars(self), "added_ms": [[*kind, ms] for kind, ms in self.added_ms.items()]}

    @classmethod
    def of_plain(cls, given: Mapping[str, Any]) -> Setting:
        """What :meth:`as_plain` gave."""
        return cls(**{**given, "added_ms": {(part, option): ms for part, option, ms in given["added_ms"]}})


def measure_settings(
    options: Options,
    library: Library,
    latencies: Callable[[Sequence[Architecture]], Sequence[float]],
    report: Callable[[str], None] = lambda text: None,
    is_over: Callable[[], bool] = lambda: False,
) -> list[Setting]:
    """Measure the parent and every option in every combination of the global dimensions.

    Latencies are measured in place: of the whole network with the option in all blocks, divided by their number.

    Args:
        options: of the space.
        library: the damages.
        latencies: milliseconds of several architectures, measured side by side.
        report: called with what is done next.
        is_over: once it is true, the other combinations are left out.
    """
    measured: dict[str, Sequence[float]] = {}
    found, every, replacements = [], options.global_parameters(), list(options.replacements())
    kinds = list(dict.fromkeys((each.part, each.option) for each in replacements))
    placed = [[each for each in replacements if (each.part, each.option) == kind] for kind in kinds]
    for number, given in enumerate(every, 1):
        if is_over():
            break
        report(f"measuring the latency of replacements, {number} of {len(every)}")
        networks = [options.architecture(options.parameters(each, given)) for each in ([], *placed)]
        network = key({name: value for name, value in given.items() if name not in SAME_LATENCY})
        if network not in measured:
            measured[network] = latencies(networks)
        whole, *others = measured[network]
        added = {kind: (ms - whole) / len(each) for kind, each, ms in zip(kinds, placed, others, strict=True)}
        found.append(Setting(given, library.damage_of(networks[0]), whole, added))
    return found


def predict_front(options: Options, library: Library, settings: Sequence[Setting]) -> list[Predicted]:
    """The networks that no other one dominates in predicted damage and latency, by ascending latency."""
    sub_blocks, found = [(block, part) for block in range(options.depth) for part in PARTS], []
    for setting in settings:
        choices = [_choices(options, library, setting, *sub_block) for sub_block in sub_blocks]
        for each in best_sums(choices, Sum(setting.damage, setting.latency_ms, ())):
            parameters = options.parameters(each.replacements, setting.parameters)
            found.append(Predicted(parameters, each.damage, each.latency_ms))
    return non_dominated(found)


def predict(options: Options, library: Library, setting: Setting, replacements: Sequence[Replacement]) -> Sum:
    """The predicted damage and latency of some replacements."""
    damage = setting.damage + sum(damage_of(library, each) for each in replacements)
    added = sum(setting.added_ms[each.part, each.option] for each in replacements)
    return Sum(damage, setting.latency_ms + added, tuple(replacements))


def best_sums(choices: Sequence[Sequence[Choice]], start: Sum) -> list[Sum]:
    """The sums of one choice each that no other one dominates, by ascending latency."""
    sums = [start]
    for each in choices:
        sums = non_dominated([_added(total, choice) for total in sums for choice in each])
        if len(sums) > MAX_SUMS:
            step = (len(sums) - 1) / (MAX_SUMS - 1)
            sums = [sums[round(n * step)] for n in range(MAX_SUMS)]
    return sums


def non_dominated(found: Sequence[Scored]) -> list[Scored]:
    """Those with less damage than all that are at least as fast, by ascending latency."""
    kept: list[Scored] = []
    for each in sorted(found, key=lambda each: (each.latency_ms, each.damage)):
        if not kept or each.damage < kept[-1].damage:
            kept.append(each)
    return kept


def spread(front: Sequence[Predicted], count: int) -> list[Predicted]:
    """``count`` members of a front by farthest-point sampling (Gonzalez, 1985), the slowest one first.

    Each is the farthest from the ones before in the logarithm of latency and in damage, both scaled to a range of 1: so
    the start of the list covers the front, wherever it is cut.
    """
    if not front or count < 1:
        return []
    axes = ([math.log(max(each.latency_ms, 1e-9)) for each in front], [each.damage for each in front])
    points = list(zip(*(_scaled(axis) for axis in axes), strict=True))
    chosen = [len(front) - 1]
    while len(chosen) < min(count, len(front)):
        distances = [min(math.dist(point, points[other]) for other in chosen) for point in points]
        chosen.append(max(range(len(front)), key=distances.__getitem__))
    return [front[at] for at in chosen]


def _scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def _choices(options: Options, library: Library, setting: Setting, block: int, part: Part) -> list[Choice]:
    found = [Choice(None, 0.0, 0.0)]
    for option in options.of_block(part, block)[1:]:
        replacement = Replacement(block, part, option)
        found.append(Choice(replacement, damage_of(library, replacement), setting.added_ms[part, option]))
    return found


def damage_of(library: Library, replacement: Replacement) -> float:
    """The damage of a replacement that has been made, at least 0."""
    entry = library.entry(replacement)
    assert entry is not None, f"{replacement.name} has not been made"
    return max(entry.damage, 0.0)


def _added(total: Sum, choice: Choice) -> Sum:
    replacements = total.replacements if choice.replacement is None else (*total.replacements, choice.replacement)
    return Sum(total.damage + choice.damage, total.latency_ms + choice.latency_ms, replacements)
