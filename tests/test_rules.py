"""Each rule that compares trials against a loop over records, and the reasons it gives."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from search.pruning.accuracy_only import AccuracyOnly
from search.pruning.ceiling import Ceiling
from search.pruning.i_epoch import IEpoch
from search.pruning.latency_conditional import LatencyConditional
from search.pruning.optimistic import Optimistic
from search.study.history import History
from search.study.records import Objectives, Record

COSTS = ("latency_ms", "parameters", "memory_mb")
NAN, INF = float("nan"), float("inf")


def objectives(costs=1, direction="maximize"):
    best = 1.0 if direction == "maximize" else -1.0
    return Objectives("accuracy", direction, COSTS[:costs], chance=0.0, best=best, ceilings=(9.0,) * costs)


def studies(costs):
    """Random records of all states and curve lengths, with few distinct metrics and costs, hence many ties."""
    random = np.random.default_rng(costs)
    for size in (1, 3, 6, 16, 16):
        records = []
        for number in range(size):
            metrics = (random.integers(0, 9, random.integers(0, 5)) / 8.0).tolist()
            if metrics and random.random() < 0.1:
                metrics[random.integers(len(metrics))] = float(random.choice([NAN, INF, -INF]))
            state = str(random.choice(["complete", "complete", "pruned", "running", "failed"]))
            final = float(random.choice([0.5, 0.75, 1.0, NAN], p=[0.4, 0.3, 0.25, 0.05]))
            trial_costs = dict(zip(COSTS, random.integers(1, 4, costs).astype(float).tolist(), strict=False))
            curve = list(enumerate(metrics, start=1))
            records.append(Record(number, state, trial_costs, curve, final if state == "complete" else None))
        yield records


def loss(metric):
    return -metric if math.isfinite(metric) else INF


def cheaper_or_equal(trial, others):
    return [other for other in others if all(other.costs[name] <= trial.costs[name] for name in trial.costs)]


def at(epoch, others):
    """``(loss, number, record)`` of the trials evaluated after an epoch, the best first."""
    return sorted((loss(dict(r.curve)[epoch]), r.number, r) for r in others if epoch in dict(r.curve))


def finals(others):
    """``(final loss, number, record)`` of the complete trials, the best first."""
    return sorted((-r.metric, r.number, r) for r in others if r.metric is not None and math.isfinite(r.metric))


def numbers(ranking):
    return tuple(number for _, number, _ in ranking)


def slow_latency_conditional(rule, trial, epoch, others):
    now = loss(trial.curve[-1][1]) if epoch else None
    ahead = [each for each in at(epoch, cheaper_or_equal(trial, others)) if each[0] < now - rule.slack]
    if epoch >= rule.min_epochs and len(ahead) >= rule.beaters:
        return -ahead[-1][0] - rule.slack, numbers(ahead)
    return None


def slow_i_epoch(rule, trial, epoch, others):
    ahead = [each for each in at(epoch, cheaper_or_equal(trial, others)) if each[0] < loss(trial.curve[-1][1])]
    return (-ahead[-1][0], numbers(ahead)) if epoch == rule.epoch and ahead else None


def slow_accuracy_only(rule, trial, epoch, others):
    if epoch not in [rule.min_epochs * rule.eta**k for k in range(9)]:
        return None
    ranking = at(epoch, [*others, trial])
    places, place = math.ceil(len(ranking) / rule.eta), numbers(ranking).index(trial.number)
    return (-ranking[places - 1][0], numbers(ranking[:place])) if place >= places else None


def slow_ceiling(rule, trial, epoch, others):
    target = 0.99 if rule.target is None else rule.target
    done = [each for each in finals(cheaper_or_equal(trial, others)) if each[0] <= -target]
    return (target, numbers(done)) if done else None


def slow_optimistic(rule, trial, epoch, others):
    pairs = [(then, final) for final, _, r in finals(others) for then, _, _ in at(epoch, [r]) if math.isfinite(then)]
    if epoch < rule.min_epochs or len(pairs) < rule.neighbours:
        return None
    now = loss(trial.curve[-1][1])
    reach = sorted(abs(then - now) for then, _ in pairs)[rule.neighbours - 1]
    gains = sorted(then - final for then, final in pairs if abs(then - now) <= reach)
    place = rule.quantile * (len(gains) - 1)
    low, high = gains[math.floor(place)], gains[math.ceil(place)]
    end = now - (low + (place - math.floor(place)) * (high - low))
    done = [each for each in finals(cheaper_or_equal(trial, others)) if each[0] <= end]
    return (-finals(cheaper_or_equal(trial, others))[0][0], numbers(done)) if done else None


LOOPS = [
    (LatencyConditional(beaters=1, slack=0.0, min_epochs=1), slow_latency_conditional),
    (LatencyConditional(beaters=2, slack=0.125, min_epochs=2), slow_latency_conditional),
    (IEpoch(epoch=1), slow_i_epoch),
    (IEpoch(epoch=3), slow_i_epoch),
    (AccuracyOnly(eta=2, min_epochs=1), slow_accuracy_only),
    (AccuracyOnly(eta=3, min_epochs=1), slow_accuracy_only),
    (Ceiling(target=None), slow_ceiling),
    (Ceiling(target=0.75), slow_ceiling),
    (Optimistic(quantile=1.0, neighbours=1, min_epochs=1), slow_optimistic),
    (Optimistic(quantile=0.5, neighbours=3, min_epochs=2), slow_optimistic),
]


@pytest.mark.parametrize(
    ("rule", "loop"), [pytest.param(*row, id=f"{row[1].__name__}-{n}") for n, row in enumerate(LOOPS)]
)
@pytest.mark.parametrize("costs", [1, 2, 3])
def test_a_rule_equals_a_loop_over_records(rule, loop, costs):
    seen = set()
    for records in studies(costs):
        history = History.of(records, objectives(costs))
        for record in records:
            others = [other for other in records if other is not record]
            for length in range(len(record.curve) + 1):
                trial = replace(record, state="running", metric=None, curve=record.curve[:length])
                if length == 0 or math.isfinite(trial.curve[-1][1]):
                    stop = rule.should_stop(trial, history)
                    got = None if stop is None else (stop.threshold, tuple(stop.beaten_by))
                    needs_epoch = loop is not slow_ceiling and length == 0
                    assert got == (None if needs_epoch else loop(rule, trial, length, others)), trial
                    assert stop is None or stop.epoch == length
                    seen.add(got is None)
            history.add(record)
    assert seen == {True, False}


def finished(number, now, final, cost=1.0):
    return Record(number, "complete", {"latency_ms": cost}, [(1, now), (2, final)], final)


PEERS = [
    finished(0, 0.5, 0.7),
    finished(1, 0.6, 0.7),
    finished(2, 0.7, 0.9),
    finished(3, 0.8, 0.995),
    finished(4, 0.4, 0.6),
]
BEHIND = Record(9, "running", {"latency_ms": 2.0}, [(1, 0.123456)])


@pytest.mark.parametrize(
    ("rule", "reason", "threshold"),
    [
        (
            LatencyConditional(beaters=2, slack=0.0, min_epochs=1),
            "epoch 1: accuracy 0.1235; better at no higher cost: trials 3, 2, 1 and 2 more",
            0.4,
        ),
        (
            LatencyConditional(beaters=2, slack=0.5, min_epochs=1),
            "epoch 1: accuracy 0.1235; better at no higher cost: trials 3, 2",
            0.2,
        ),
        (IEpoch(epoch=1), "epoch 1: accuracy 0.1235; better at no higher cost: trials 3, 2, 1 and 2 more", 0.4),
        (
            AccuracyOnly(eta=2, min_epochs=1),
            "epoch 1: accuracy 0.1235, not among the best 3 of 6; better: trials 3, 2, 1 and 2 more",
            0.6,
        ),
        (
            Ceiling(target=None),
            "epoch 1: accuracy 0.1235, the target accuracy 0.99 is reached; better at no higher cost: trial 3",
            0.99,
        ),
        (
            Optimistic(quantile=1.0, neighbours=1, min_epochs=1),
            "epoch 1: accuracy 0.1235, at best 0.3235 expected in the end; better at no higher cost: trials 3, 2, 0 "
            "and 2 more",
            0.995,
        ),
    ],
)
def test_a_reason_lists_the_best_three_trials_and_counts_the_others(rule, reason, threshold):
    stop = rule.should_stop(BEHIND, History.of(PEERS, objectives()))
    assert (stop.reason, stop.epoch) == (reason, 1)
    assert stop.threshold == pytest.approx(threshold)


def test_ceiling_stops_before_training_and_stores_twenty_numbers():
    stop = Ceiling(target=0.5).should_stop(
        replace(BEHIND, curve=[]), History.of([finished(n + 10, 0.5, 0.5) for n in range(30)], objectives())
    )
    assert stop.reason == (
        "before training: the target accuracy 0.5 is reached; better at no higher cost: trials 10, 11, 12 and 27 more"
    )
    assert (stop.epoch, stop.beaten_by) == (0, tuple(range(10, 30)))


WHOLE = "must be a whole number from 1"


@pytest.mark.parametrize(
    ("rule", "settings", "wrong", "message"),
    [
        (LatencyConditional, {"beaters": 2, "slack": 0.0, "min_epochs": 1}, {"beaters": 0}, WHOLE),
        (LatencyConditional, {"beaters": 2, "slack": 0.0, "min_epochs": 1}, {"slack": -0.1}, "must be a number from 0"),
        (LatencyConditional, {"beaters": 2, "slack": 0.0, "min_epochs": 1}, {"slack": NAN}, "must be a number from 0"),
        (LatencyConditional, {"beaters": 2, "slack": 0.0, "min_epochs": 1}, {"min_epochs": 1.5}, WHOLE),
        (IEpoch, {}, {"epoch": 0}, WHOLE),
        (IEpoch, {}, {"epoch": True}, WHOLE),
        (Ceiling, {}, {"target": "0.9"}, "must be a number or null"),
        (Ceiling, {}, {"target": False}, "must be a number or null"),
        (Optimistic, {"neighbours": 2, "min_epochs": 1}, {"quantile": 1.1}, "must be a number of 0 to 1"),
        (Optimistic, {"quantile": 0.5, "min_epochs": 1}, {"neighbours": 0}, WHOLE),
        (Optimistic, {"quantile": 0.5, "neighbours": 2}, {"min_epochs": "1"}, WHOLE),
    ],
)
def test_invalid_settings_are_rejected(rule, settings, wrong, message):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^{name}={re.escape(repr(value))}: it {message}$"):
        rule(**settings | wrong)
