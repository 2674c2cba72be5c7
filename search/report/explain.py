"""Why a trial became what it is: lines for people, out of what the study's storage holds and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from search import pareto
from search.study.records import COUNTED, Objectives, Record, State, Stop, front
from spaces.architecture import describe


def explain(
    number: int,
    records: Mapping[int, Record],
    successors: Mapping[int, int],
    objectives: Objectives,
    places: Collection[str],
) -> Iterator[str]:
    """Explain trial ``number``, line by line.

    Args:
        number: which; a key of ``records``.
        records: every trial that has begun, by number, also those that don't count.
        successors: the number of the trial that replaces a trial, by its own.
        objectives: what the front is judged by.
        places: the dotted names of the dimensions worth showing.
    """
    trial = records[number]
    yield f"trial {number}: {_STATES.get(trial.state, trial.state)}"
    yield f"  architecture  {describe(trial.architecture, places)}"
    if trial.costs:
        yield f"  costs         {_costs(trial, trial.costs)}"
    if trial.curve:
        curve = dict(trial.curve)  # of an epoch that stands there twice the later entry counts
        yield f"  {objectives.metric} by epoch  " + "  ".join(f"{at}: {metric:.4g}" for at, metric in curve.items())
    earlier = trial.replaces
    while earlier is not None:
        yield f"  replaces      trial {earlier}, which {_ending(records.get(earlier))}"
        earlier = records[earlier].replaces if earlier in records else None
    if trial.reason:
        yield f"  reason        {trial.reason}"
    if trial.stop is not None:
        yield from _stopped(trial.stop, records, objectives, places)
    if trial.state == State.COMPLETE:
        yield from _judged(trial, [each for each in records.values() if each.state in COUNTED], objectives, places)
    while number in successors:
        number = successors[number]
        where = records[number].state if number in records else "waiting for a worker"
        yield f"  replaced by   trial {number}: {where}"


_STATES = {
    State.OVER_QUOTA: "not run: the study already had all its trials",
    State.REPLACED: "replaced by a trial that continues it",
}


def _stopped(
    stop: Stop, records: Mapping[int, Record], objectives: Objectives, places: Collection[str]
) -> Iterator[str]:
    """At which rung, what would have sufficed there, and who was better."""
    yield f"  rung          {_rung(stop.epoch)}"
    if stop.threshold is not None:
        yield f"  threshold     {objectives.metric} {stop.threshold:.4g}"
    if stop.beaten_by:
        yield "  beaten by"
    for number in stop.beaten_by:
        if number in records:
            yield _line(records[number], objectives, places, epoch=stop.epoch)


def _judged(
    trial: Record, counted: Collection[Record], objectives: Objectives, places: Collection[str]
) -> Iterator[str]:
    """Whether a complete trial is on the front of those that count, or which of its members dominate it."""
    point, members = objectives.point(trial), front(list(counted), objectives)
    if point is None:
        yield f"  front         no: {objectives.metric} is {trial.metric}"
    elif trial.number in [member.number for member in members]:
        yield "  front         yes: no trial costs no more and is better"
    else:
        points = [objectives.point(member) for member in members]
        beaten = pareto.dominating([each for each in points if each is not None], point)
        yield "  front         no, dominated by"
        for member, dominates in zip(members, beaten, strict=True):
            if dominates:
                yield _line(member, objectives, places)


def _line(trial: Record, objectives: Objectives, places: Collection[str], *, epoch: int = 0) -> str:
    """A trial that is better: its metric at a rung and in the end, its costs, its architecture."""
    values = [(trial.metric_at(epoch), f" at {_rung(epoch)}"), (trial.metric, " in the end")]
    metrics = ", ".join(f"{value:.4g}{where}" for value, where in values if value is not None)
    costs = _costs(trial, objectives.costs)
    return f"{trial.number:6d}  {objectives.metric} {metrics}  {costs}  {describe(trial.architecture, places)}"


def _costs(trial: Record, names: Collection[str]) -> str:
    """Costs by name. A latency that was measured again had another value when trials were judged by it."""
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


def _ending(trial: Record | None) -> str:
    """How a trial ended that went on under another number."""
    if trial is None:
        return "is not there any more"
    if trial.stop is None:
        return "lost its worker"
    return f"was paused at epoch {trial.stop.epoch}: {trial.stop.reason}"
