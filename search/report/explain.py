"""Why a trial became what it is: lines for people, out of what the study's storage holds and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from search import pareto
from search.study.records import Objectives, Record, Stop, front
from spaces.architecture import describe


def why(
    number: int,
    everyone: Mapping[int, Record],
    went_on: Mapping[int, int],
    objectives: Objectives,
    places: Collection[str],
) -> Iterator[str]:
    """Explain trial ``number``, line by line.

    Args:
        number: which; a key of ``everyone``.
        everyone: every trial that began, by number, those included that went on under another one.
        went_on: the number under which a trial went on, by its own.
        objectives: what the front is judged by.
        places: the dotted places of the settings worth showing.
    """
    trial = everyone[number]
    yield f"trial {number}: {trial.state}"
    yield f"  architecture  {describe(trial.architecture, places)}"
    if trial.costs:
        yield f"  costs         {_costs(trial, trial.costs)}"
    if trial.curve:
        curve = dict(trial.curve)  # of an epoch that stands there twice the later entry counts
        yield f"  {objectives.metric} by epoch  " + "  ".join(f"{at}: {metric:.4g}" for at, metric in curve.items())
    earlier = trial.replaces
    while earlier is not None:
        yield f"  goes on from  trial {earlier}, which {_ending(everyone.get(earlier))}"
        earlier = everyone[earlier].replaces if earlier in everyone else None
    if trial.reason:
        yield f"  reason        {trial.reason}"
    if trial.stop is not None:
        yield from _stopped(trial.stop, everyone, objectives, places)
    if trial.state == "complete":
        yield from _judged(
            trial, [each for each in everyone.values() if each.number not in went_on], objectives, places
        )
    while number in went_on:
        number = went_on[number]
        where = everyone[number].state if number in everyone else "waiting for a worker"
        yield f"  went on as    trial {number}: {where}"


def _stopped(
    stop: Stop, everyone: Mapping[int, Record], objectives: Objectives, places: Collection[str]
) -> Iterator[str]:
    """At which rung, what would have sufficed there, and who was better."""
    yield f"  rung          {_rung(stop.epoch)}"
    if stop.threshold is not None:
        yield f"  threshold     {objectives.metric} {stop.threshold:.4g}"
    if stop.beaten_by:
        yield "  beaten by"
    for number in stop.beaten_by:
        if number in everyone:
            yield _line(everyone[number], objectives, places, epoch=stop.epoch)


def _judged(
    trial: Record, counted: Collection[Record], objectives: Objectives, places: Collection[str]
) -> Iterator[str]:
    """Whether a complete trial is on the front of those that count, or which of its members dominate it."""
    point, members = objectives.point(trial), front(list(counted), objectives)
    if point is None:
        yield f"  front         no: {objectives.metric} is {trial.metric}"
    elif "twin_of" in trial.details:
        yield f"  front         no: trial {trial.details['twin_of']} stands there for both, if at all"
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
            first = trial.details.get("first_latency_ms") if name == "latency_ms" else None
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
