"""One trial from top to bottom: sample, skip a duplicate, cost, check limits, train, prune. Read this file first."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import optuna

from search.budget.deadline import OUT_OF_TIME, Deadline
from search.costs import CostModel, excess_over_limits
from search.lifecycle import Proposer
from search.pruning import Pruner
from search.study.attributes import OpenTrial
from search.study.records import UNUSABLE, Objectives, Record, State, Stop
from search.study.store import TrialStore
from search.training import Learner
from search.training.divergence import reason_to_prune
from spaces.space import Space

log = logging.getLogger(__name__)
SAVED_EPOCHS = 3  # a checkpoint is written after each of the last epochs in the time budget, of others when due


@dataclass(frozen=True)
class Search:
    """All that decides what becomes of an architecture; the same for every trial of a study."""

    space: Space
    objectives: Objectives
    limits: Mapping[str, float | None]
    cost_model: CostModel
    proposer: Proposer
    pruner: Pruner
    learner: Learner
    deadline: Deadline = field(default_factory=Deadline)


def evaluate(trial: optuna.Trial, store: TrialStore, search: Search) -> Generator[Record]:
    """Run a trial: yields its record at the start, before the first epoch and after each; the last one is final.

    What is yielded has been written to ``store``. Closing the iterator ends the training.
    """
    own = store.begin(trial, search.space.suggest(trial))
    try:
        yield from _evaluate(own, store, search)
    except Exception as error:
        if not (reason := reason_to_prune(error)):
            raise
        own.constrain(UNUSABLE, 1.0)
        yield own.write(stop=Stop(f"after {own.record.epochs} epochs: {reason}", own.record.epochs), state=State.PRUNED)


def _evaluate(own: OpenTrial, store: TrialStore, search: Search) -> Iterator[Record]:
    earlier = store.earlier(own.record.number)
    if earlier:
        own.write(training_s=earlier[0].training_s, latency_s=earlier[0].latency_s)
    other = _duplicated(own.record, store)
    if other is not None:
        yield own.write(duplicate_of=other.number, costs=dict(other.costs), state=State.DUPLICATE)
        return
    yield own.record
    _write_costs(own, earlier, store, search)
    if stop := _over_limit(own, search.limits):
        yield own.write(stop=stop, state=State.PRUNED)
        return
    saved = search.learner.saved_epochs(own.record)
    resumed = next((record for record in earlier if saved and record.metric_at(saved) is not None), None)
    if resumed is None:  # the first start, or the checkpoint is on another host
        if any(record.curve for record in earlier):
            log.warning("Trial %d is trained from the beginning: it has no checkpoint here.", own.record.number)
        own.write(cpu_seconds=[], curve=[])  # first: it fails if this worker was stopped and the trial taken over
        search.learner.discard(own.record.number)
    else:
        entries = [epoch for epoch, _ in resumed.curve].index(saved) + 1
        own.write(cpu_seconds=list(resumed.cpu_seconds)[:entries], curve=list(resumed.curve)[:entries])
    yield own.record
    # Of a trial whose worker died the decision after its last epoch may be missing; one that was paused goes on.
    paused = any(record.state == State.PAUSED and record.epochs == own.record.epochs for record in earlier)
    if paused and any(record.state == State.PAUSED and _stopped_by_rule(record) for record in earlier):
        own.write(resumed=True)
    if not (resumed and paused) and (stop := _should_stop(own.record, store, search)):
        yield own.write(stop=stop, state=State.PAUSED if _may_be_resumed(own.record, search) else State.PRUNED)
        return
    yield from _train(own, store, search)


def _stopped_by_rule(record: Record) -> bool:
    return record.stop is not None and not record.stop.reason.startswith(OUT_OF_TIME)


def _may_be_resumed(record: Record, search: Search) -> bool:
    """Whether the pruner may resume a trial that it stops: one with epochs whose metric is finite."""
    return search.pruner.pauses and record.last_metric is not None and math.isfinite(record.last_metric)


def _train(own: OpenTrial, store: TrialStore, search: Search) -> Iterator[Record]:
    """Train to the last epoch, or until pruner or deadline stop the trial.

    Checkpoints are written after epochs, that of a paused trial is kept.
    """
    deadline = search.deadline
    last_s = deadline.elapsed_s()
    start_s = last_s - own.record.training_s  # as if it had not been interrupted
    resume = bool(own.record.curve)
    trained = None if resume else _trained_alike(own.record, store)
    with search.learner.train(own.record, resume=resume, trained=trained) as training:
        for epoch, metric, cpu_s in training:
            # Written before the other trials are read: of two workers that race, one sees the other.
            own.write(
                curve=[*own.record.curve, (epoch, metric)],
                cpu_seconds=[*own.record.cpu_seconds, cpu_s],
                training_s=deadline.elapsed_s() - start_s,
                overhead=training.overhead,
            )
            if epoch == training.epochs:  # stopping it now would only throw its result away
                with deadline.stopwatch.measured("final metrics and weights"):
                    own.write(
                        validation_metrics=training.evaluate("validation"), test_metrics=training.evaluate("test")
                    )
                    own.write(weights=training.save_weights())
                yield own.write(metric=training.metric, state=State.COMPLETE)
                return
            if stop := _should_stop(own.record, store, search):
                if pauses := _may_be_resumed(own.record, search):
                    training.save()
                yield own.write(stop=stop, state=State.PAUSED if pauses else State.PRUNED)
                return
            epoch_s, last_s = deadline.elapsed_s() - last_s, deadline.elapsed_s()
            left_s = deadline.left_s()
            training.save(if_due=left_s >= SAVED_EPOCHS * epoch_s)
            if left_s < epoch_s:
                yield own.write(stop=Stop(OUT_OF_TIME, epoch), state=State.PAUSED)
                return
            yield own.record
        # The deadline ended the training within an epoch.
        own.write(training_s=deadline.elapsed_s() - start_s)
        yield own.write(stop=Stop(OUT_OF_TIME, own.record.epochs), state=State.PAUSED)


def values(record: Record, store: TrialStore, objectives: Objectives) -> tuple[float, ...] | None:
    """What Optuna is told of a trial that has ended: its objectives' values, of a duplicate the other trial's.

    None for a pruned trial.
    """
    if record.duplicate_of is not None:
        record = store.record(record.duplicate_of)
    return None if record.metric is None else (record.metric, *(record.costs[name] for name in objectives.costs))


def _duplicated(record: Record, store: TrialStore) -> Record | None:
    """The first earlier trial of the same architecture that has a result or may get one."""
    earlier = (other for other in store.records() if other.number < record.number and other.state != State.FAILED)
    return next((other for other in earlier if other.key == record.key), None)


def _trained_alike(record: Record, store: TrialStore) -> Record | None:
    """The latest complete trial with the same trained weights, which differs in the quantization only."""
    alike = (other for other in reversed(store.records()) if other.trained_key == record.trained_key)
    return next((other for other in alike if other.state == State.COMPLETE and other.weights), None)


def _write_costs(own: OpenTrial, replaced: Sequence[Record], store: TrialStore, search: Search) -> None:
    """Costs are those of the trials that it replaces or of one with the same network on this host, or else measured.

    Measured again they would differ by noise, and of two trials with the same network one would dominate the other.
    """
    network, host = own.record.network_key, search.cost_model.host
    same = (other for other in store.records() if other.network_key == network)
    known = next((other for other in replaced if other.timing), None)
    known = known or next((other for other in same if other.timing and other.timing.host == host), None)
    if known and known.timing:
        own.write(costs=dict(known.costs), timings=(known.timing,))
        return
    start = time.perf_counter()
    counted, timing = search.cost_model.costs(dict(own.record.architecture))
    # The timing last: a worker that sees it takes the costs over.
    own.write(latency_s=time.perf_counter() - start, costs={"latency_ms": timing.ms, **counted}, timings=(timing,))


def _over_limit(own: OpenTrial, limits: Mapping[str, float | None]) -> Stop | None:
    excess = excess_over_limits(own.record.costs, limits)
    for name, value in excess.items():
        own.constrain(name, value)
    over = [name for name, value in excess.items() if value > 0]
    reasons = [f"{name} {own.record.costs[name]:.4g} is over the limit {limits[name]:g}" for name in over]
    return Stop("; ".join(reasons), epoch=0) if over else None


def _should_stop(record: Record, store: TrialStore, search: Search) -> Stop | None:
    history = store.history(search.objectives)
    return search.pruner.should_stop(history.record(record.number), history)
