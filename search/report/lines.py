"""A line per trial that fits the width of the terminal, and the line above them that names the columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from search.config import COSTS
from search.report.endings import cut, shortened_ending
from search.study.records import Objectives, Record, State
from spaces.architecture import brief, pattern

WIDTH = 100  # where the output is not a terminal
MEMBER = "*"


def header(objectives: Objectives) -> str:
    """The names of the columns."""
    cost, metric = _titles(objectives)
    return f"trial {cost} {metric}  {MEMBER}: on the front so far"


def trial_line(
    trial: Record,
    others: Mapping[int, Record],
    objectives: Objectives,
    dimensions: Collection[str],
    *,
    on_front: bool,
    width: int,
) -> str:
    """Number, first cost, last metric, and the architecture of a trial, or why it was stopped.

    Args:
        trial: that has ended.
        others: the study, by number.
        objectives: the metric and the costs.
        dimensions: dotted names of the settings to show.
        on_front: whether the line is marked.
        width: in characters, which the line does not exceed.
    """
    cost_title, metric_title = _titles(objectives)
    cost, metric = trial.costs.get(objectives.costs[0]), trial.last_metric
    shown = f"{_number(cost):>{len(cost_title)}} {'' if metric is None else f'{metric:.4f}':>{len(metric_title)}}"
    start = f"{MEMBER if on_front else ' '}{trial.number:>4} {shown}  "
    if trial.state == State.COMPLETE:
        return cut(start + brief(trial.architecture, dimensions), width)
    name = f"{pattern(trial.architecture)}: " if trial.architecture else ""
    return cut(start + name + shortened_ending(trial, others, objectives, width=width - len(start) - len(name)), width)


def _titles(objectives: Objectives) -> tuple[str, str]:
    """The names of the columns of cost and metric, at their widths."""
    return f"{COSTS[objectives.costs[0]].title:>7}", f"{objectives.metric:>6}"


def _number(cost: float | None) -> str:
    return "" if cost is None else f"{cost:.4g}"
