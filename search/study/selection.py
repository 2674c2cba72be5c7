"""Choosing one member of a front: by number, limits, the lowest cost or the knee.

The knee is the member with the smallest sum of normalised objectives, each scaled so that 0 is its best and 1 its worst
value on the front. Of two objectives it is the point farthest below the straight line between the front's ends: Das,
"On characterizing the 'knee' of the Pareto curve based on normal-boundary intersection", 1999.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from search.config import COSTS
from spaces.architecture import format_value
from spaces.dimensions import ConfigError

if TYPE_CHECKING:  # so that --help need not import numpy
    from search.study.records import Objectives, Record

MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}  # units of a latency, in milliseconds
_LATENCY = re.compile(r"([\d.]+(?:e[+-]?\d+)?)(us|ms|s)")


@dataclass(frozen=True)
class Selection:
    """Which member to choose, among those within the limits.

    With limits alone it is the one with the best metric if there is a limit of a cost, otherwise the cheapest.

    Attributes:
        pick: the number of a trial.
        knee: the knee of the whole front, see above; with limits that of the members within them.
        cheapest: the member with the lowest first cost.
        within: the highest costs by name.
        at_least: the worst metric; of a metric that is minimized the highest.
    """

    pick: int | None = None
    knee: bool = False
    cheapest: bool = False
    within: Mapping[str, float] = field(default_factory=dict)
    at_least: float | None = None

    @classmethod
    def of(cls, asked: argparse.Namespace) -> Selection:
        """What the options of :func:`add_options` say."""
        return cls(asked.pick, asked.knee, asked.cheapest, dict(asked.within), asked.at_least)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self == Selection()

    def __str__(self) -> str:
        """The options, as typed."""
        words = [] if self.pick is None else [f"--pick {self.pick}"]
        words += [f"--{name}" for name in ("knee", "cheapest") if getattr(self, name)]
        words += [f"--within {name}={limit:g}" for name, limit in self.within.items()]
        return " ".join([*words, *([] if self.at_least is None else [f"--at-least {self.at_least:g}"])])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a selection to a command."""
    group = parser.add_argument_group("choose a member of the front")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--pick", metavar="N", type=int, help="trial N")
    which.add_argument("--knee", action="store_true", help="the one with the smallest sum of normalised objectives")
    which.add_argument("--cheapest", action="store_true", help="the one with the lowest cost")
    group.add_argument(
        "--within",
        metavar="LIMIT",
        type=_limit,
        action="append",
        default=[],
        help="at most this latency, such as 2ms, or cost, such as parameters=20000; alone: the best of these",
    )
    group.add_argument(
        "--at-least", metavar="METRIC", type=float, help="at least as good a metric; alone: the cheapest of these"
    )


def _limit(text: str) -> tuple[str, float]:
    latency = _LATENCY.fullmatch(text)
    name, equals, value = ("latency_ms", "=", "") if latency else text.partition("=")
    try:
        number = float(latency[1]) * MS[latency[2]] if latency else float(value)
    except ValueError:
        number = -1.0
    if not equals or name not in COSTS or not number > 0:
        known = ", ".join(COSTS)
        raise argparse.ArgumentTypeError(f"{text}: it must be a latency such as 2ms, or COST=NUMBER with {known}")
    return name, number


def select(
    members: Sequence[Record], objectives: Objectives, selection: Selection, *, default_best: bool = False
) -> Record:
    """The member of a front that ``selection`` chooses; of equally good ones the cheapest.

    Args:
        members: the front, by ascending cost.
        objectives: of the study.
        selection: must not be empty, unless ``default_best``: then the member with the best metric is chosen.

    Raises:
        ConfigError: there is none, or the selection is empty.
    """
    if not members:
        raise ConfigError("the front is empty: no trial is complete")
    if selection.is_empty and default_best:
        return objectives.best_of(members)
    if selection.is_empty:
        raise ConfigError("choose a member of the front: --pick N, --knee, --cheapest, --within or --at-least")
    fitting = [member for member in members if not _excess(member, objectives, selection)]
    if selection.pick is not None:
        return _picked(members, objectives, selection)
    if not fitting:
        raise ConfigError(f"no member of the front fits {selection}: {_closest(members, objectives, selection)}")
    if selection.knee:
        return fitting[knee([_point(member, objectives) for member in fitting])]
    if selection.cheapest or not selection.within:
        return fitting[0]
    return objectives.best_of(fitting)


def knee(points: Sequence[Sequence[float]]) -> int:
    """The index of the knee of a front of points, all of whose objectives are minimized; of several the first."""
    bounds = [(min(column), max(column)) for column in zip(*points, strict=True)]

    def distance(index: int) -> float:
        pairs = zip(points[index], bounds, strict=True)
        return round(sum((value - low) / (high - low) for value, (low, high) in pairs if high > low), 12)

    return min(range(len(points)), key=distance)


def exchange_rates(members: Sequence[Record], objectives: Objectives) -> list[float | None]:
    """How much better the metric becomes per unit of the cost, from each member to the next more expensive one.

    None for the first one, and for all if there are several costs, where a front has no order.
    """
    if len(objectives.costs) > 1:
        return [None] * len(members)
    steps = pairwise(_point(member, objectives) for member in members)
    rates = [(a[0] - b[0]) / (b[1] - a[1]) if b[1] > a[1] else None for a, b in steps]
    return [None, *rates][: len(members)]


def _point(member: Record, objectives: Objectives) -> tuple[float, ...]:
    point = objectives.point(member)
    assert point is not None, "members of a front are complete"
    return point


def _excess(member: Record, objectives: Objectives, selection: Selection) -> list[str]:
    """What of a member exceeds the limits."""
    costs, metric = member.costs, member.metric or 0.0
    over = [f"{name} {costs[name]:.4g}" for name, limit in selection.within.items() if costs[name] > limit]
    if selection.at_least is not None and objectives.loss(metric) > objectives.loss(selection.at_least):
        over.append(f"{objectives.metric} {metric:.4f}")
    return over


def _picked(members: Sequence[Record], objectives: Objectives, selection: Selection) -> Record:
    for member in members:
        if member.number == selection.pick:
            if excess := _excess(member, objectives, selection):
                raise ConfigError(f"trial {member.number} does not fit {selection}: it has {', '.join(excess)}")
            return member
    raise ConfigError(f"trial {selection.pick} is not on the front: {', '.join(str(each.number) for each in members)}")


def _closest(members: Sequence[Record], objectives: Objectives, selection: Selection) -> str:
    """The ranges of what is limited on the front."""
    found = [(name, [member.costs[name] for member in members]) for name in selection.within]
    if selection.at_least is not None:
        found.append((objectives.metric, [member.metric or 0.0 for member in members]))
    return "the front has " + ", ".join(
        f"{name} from {format_value(min(values))} to {format_value(max(values))}" for name, values in found
    )
