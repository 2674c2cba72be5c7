"""Explain the state of a trial from the records of its study."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from search import pareto
from search.report.timings import describe_difference
from search.study.records import COUNTED, Objectives, Record, State, Stop, front
from spaces.architecture import describe


def explain(
    number: int,
    records: Mapping[int, Record],
    earlier: Sequence[Record],
    objectives: Objectives,
    dimensions: Collection[str],
) -> Iterator[str]:
    """Explain trial ``number``, line by line.

    Args:
        number: a key of ``records``.
        records: every started trial by number, including those that do not count towards ``n_trials``.
        earlier: the trial as it was before it was resumed, or queued again after its worker died; the latest first.
        objectives: the metric and the costs.
        dimensions: dotted names of the settings to show.
    """
    trial = records[number]
    yield f"trial {number}: {_STATES.get(trial.state, trial.state)}"
    yield f"  architecture  {describe(trial.architecture, dimensions)}"
    if trial.costs:
        yield f"  costs         {_costs(trial, trial.costs)}"
    if trial.curve:
        curve = dict(trial.curve)  # the later entry of a repeated epoch counts
        yield f"  {objectives.metric} by epoch  " + "  ".join(
            f"{epoch}: {metric:.4g}" for epoch, metric in curve.items()
        )
    for before in reversed(earlier):
        yield f"  before        {_end_of(before)}"
    if trial.reason:
        yield f"  reason        {trial.reason}"
    yield from (f"    {line}" for line in trial.traceback.splitlines())
    if trial.stop is not None:
        yield from _stop_lines(trial, trial.stop, records, objectives, dimensions)
    if trial.state == State.COMPLETE:
        yield from _front_lines(
            trial, [each for each in records.values() if each.state in COUNTED], objectives, dimensions
        )


_STATES = {
    State.OVER_QUOTA: "not run, as the study already had n_trials trials",
    State.REPLACED: "queued again",
}


def _stop_lines(
    trial: Record,
    stop: Stop,
    records: Mapping[int, Record],
    objectives: Objectives,
    dimensions: Collection[str],
) -> Iterator[str]:
    """The rung, the threshold there, and the better trials."""
    yield f"  rung          {_rung(stop.epoch)}"
    if stop.threshold is not None:
        yield f"  threshold     {objectives.metric} {stop.threshold:.4g}"
    if stop.beaten_by:
        yield "  better trials"
    for number in stop.beaten_by:
        if number in records:
            yield _better_line(records[number], trial, objectives, dimensions, epoch=stop.epoch)


def _front_lines(
    trial: Record, counted: Collection[Record], objectives: Objectives, dimensions: Collection[str]
) -> Iterator[str]:
    """Whether a complete trial is on the front, or else which trials on it dominate it."""
    if objectives.point(trial) is None:
        yield f"  front         no: {objectives.metric} is {trial.metric}"
    elif better := dominating(trial, counted, objectives):
        yield "  front         no, dominated by"
        yield from (_better_line(member, trial, objectives, dimensions) for member in better)
    else:
        yield "  front         yes, not dominated by any trial"


def dominating(trial: Record, others: Collection[Record], objectives: Objectives) -> list[Record]:
    """The members of the front of ``others`` that dominate a trial; empty of one whose metric is not finite."""
    point, members = objectives.point(trial), front(list(others), objectives)
    if point is None or not members:
        return []
    points = [each for member in members if (each := objectives.point(member)) is not None]
    return [member for member, is_better in zip(members, pareto.dominating(points, point), strict=True) if is_better]


def _better_line(
    better: Record, trial: Record, objectives: Objectives, dimensions: Collection[str], *, epoch: int = 0
) -> str:
    """A trial that is better than ``trial``: its metric at a rung and its final one, its costs and architecture.

    Also when its latency was measured, if not together with that of ``trial``: then the two are not quite comparable.
    """
    values = [(better.metric_at(epoch), f"at {_rung(epoch)}"), (better.metric, "final")]
    metrics = ", ".join(f"{value:.4g} {label}" for value, label in values if value is not None)
    costs = _costs(better, objectives.costs)
    difference = describe_difference(better, trial, objectives)
    line = f"{better.number:6d}  {objectives.metric} {metrics}  {costs}  {describe(better.architecture, dimensions)}"
    return f"{line}  ({difference})" if difference else line


def _costs(trial: Record, names: Collection[str]) -> str:
    """Costs by name; of a latency that was measured again also the first value, which the pruner used."""
    texts = []
    for name in names:
        if name in trial.costs:
            first = trial.timings[0].ms if name == "latency_ms" and len(trial.timings) > 1 else None
            again = "" if first is None else f" ({_number(first)} when first measured)"
            texts.append(f"{name} {_number(trial.costs[name])}{again}")
    return "  ".join(texts)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1e4 else f"{value:.4g}"


def _rung(epoch: int) -> str:
    return f"epoch {epoch}" if epoch else "before training"


def _end_of(trial: Record) -> str:
    """How a trial ended before it was queued again."""
    if trial.stop is None:
        return f"its worker ended after {trial.epochs} epochs"
    return f"{trial.state} at epoch {trial.stop.epoch}: {trial.stop.reason}"
