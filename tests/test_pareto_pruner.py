"""The pausing rule against its definition, trial by trial."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from search.acquisition import BoxDecomposition
from search.pruning.gain_rate import GainRate
from search.samplers.posterior import Posterior
from search.study.history import History
from search.study.records import Objectives, Record

COSTS = ("latency_ms", "parameters", "memory_mb")
PLAN = {"train": {"epochs": 4}}


def objectives(costs=1):
    return Objectives("accuracy", "maximize", COSTS[:costs], chance=0.0, best=1.0, ceilings=(8.0,) * costs)


def trial(number, state, metrics, *costs, seconds=1.0):
    """A trial of 4 planned epochs that take ``seconds`` each."""
    return Record(
        number,
        state,
        dict(zip(COSTS, costs, strict=False)),
        list(enumerate(metrics, start=1)),
        metrics[-1] if state == "complete" else None,
        PLAN,
        cpu_seconds=[seconds * (epoch + 1) for epoch in range(len(metrics))],
    )


def random_study(costs, random, size=16):
    """Trials with ties in metrics and costs: the first half complete, the others paused after some epoch."""
    for number in range(size):
        metrics = np.sort(random.integers(0, 9, 4 if number < size / 2 else random.integers(1, 4)) / 10.0).tolist()
        state = "complete" if number < size / 2 else "paused"
        yield trial(number, state, metrics, *random.integers(1, 9, costs).tolist(), seconds=float(random.random()))


def slow_ehvi_per_second(posterior, history):
    """EHVI of one trial per second of its remaining training."""
    boxes = BoxDecomposition(history)
    gain = boxes.expected_hypervolume_improvement(posterior.costs, posterior.mean, 2 * posterior.std())[0]
    return gain / posterior.seconds[0]


def slow_promise(record, history):
    return slow_ehvi_per_second(Posterior(history, np.array([history.row(record.number)])), history)


def slow_mean_gain_per_second(history):
    seconds = sum(record.cpu_seconds[-1] for record in history.records())
    return BoxDecomposition(history).hypervolume / seconds


def slow_stop(record, history, patience):
    """Whether a trial that costs no more is ahead after the same epoch and the best alternative promises far more."""
    epoch, metric = record.curve[-1]
    ahead = [
        other
        for other in history.records()
        if other is not record
        and all(other.costs[name] <= record.costs[name] for name in history.objectives.costs)
        and dict(other.curve).get(epoch, -math.inf) > metric
    ]
    alternatives = [
        slow_promise(other, history) for other in history.records() if other.state == "paused" and other is not record
    ]
    untrained = Posterior(history, np.empty(0, dtype=np.intp), [record], forget=history.row(record.number))
    alternatives.append(slow_ehvi_per_second(untrained, history))
    enough = patience * max(alternatives)
    return bool(ahead) and (slow_promise(record, history) < enough or enough == 0)


@pytest.mark.parametrize("costs", [1, 2, 3])
def test_decisions_equal_the_definition(costs):
    random, decisions, resumed = np.random.default_rng(costs), [], []
    for _ in range(2):
        records = list(random_study(costs, random))
        for patience in (0.1, 0.7):
            rule, history = GainRate(patience=patience, first=5), History.of(records, objectives(costs))
            waiting = records[8:]
            for record in waiting:
                decisions.append(slow_stop(record, history, patience))
                assert bool(rule.should_stop(record, history)) == decisions[-1]
            rate, number = max((slow_promise(record, history), -record.number) for record in waiting)
            for last in (False, True):
                enough = (0.2 * patience if last else 1.0) * slow_mean_gain_per_second(history)
                wanted = -number if rate > enough else None
                assert rule.resumes(history, last=last) == wanted
                resumed.append(wanted)
    assert {True, False} == set(decisions)
    assert len(set(resumed)) > 1


def test_a_trial_that_was_resumed_is_not_paused_again():
    again = dataclasses.replace(trial(9, "running", [0.1], 7.9), resumed=True)
    rule = GainRate(patience=1e9, first=1)
    assert rule.should_stop(trial(9, "running", [0.1], 7.9), History.of(COMPLETE, objectives()))
    assert rule.should_stop(again, History.of(COMPLETE, objectives())) is None


COMPLETE = [trial(number, "complete", [0.2, 0.4, 0.6, 0.8 - 0.1 * number], 2.0 + number) for number in range(3)]
SLOW = trial(7, "paused", [0.1], 6.0, seconds=9.0)
FAST = trial(8, "paused", [0.2, 0.4, 0.6], 1.0, seconds=0.5)


def test_nothing_is_paused_or_resumed_before_enough_trials_are_complete():
    hopeless = trial(9, "running", [0.0], 7.9)
    for first, acts in ((3, True), (4, False)):
        assert (
            bool(GainRate(patience=9.0, first=first).should_stop(hopeless, History.of(COMPLETE, objectives()))) == acts
        )
        resumed = GainRate(patience=0.0, first=first).resumes(History.of([*COMPLETE, FAST], objectives()), last=True)
        assert resumed == (8 if acts else None)


def test_nothing_is_paused_before_training_or_without_a_better_trial_at_no_higher_cost():
    rule = GainRate(patience=1e9, first=1)
    for metrics, cost in (([], 7.9), ([0.2], 7.9), ([0.0], 1.9)):
        assert rule.should_stop(trial(9, "running", metrics, cost), History.of(COMPLETE, objectives())) is None
    assert rule.should_stop(trial(9, "running", [0.1], 7.9), History.of(COMPLETE, objectives()))


def test_patience_0_never_pauses_but_the_ceiling_still_stops():
    known = History.of(COMPLETE, objectives())
    for cost in (1.9, 7.9, 99.0):  # outside the reference box the gain is 0
        assert GainRate(patience=0.0, first=1).should_stop(trial(9, "running", [0.0], cost), known) is None
    for metrics in ([], [0.0]):
        stop = GainRate(patience=0.0, first=1, target=0.8).should_stop(trial(9, "running", metrics, 7.9), known)
        assert (stop.threshold, stop.beaten_by) == (0.8, (0,))


def test_the_highest_gain_per_second_is_resumed_and_at_the_end_a_lower_one_is_enough():
    rule = GainRate(patience=0.01, first=3)
    assert rule.resumes(History.of([*COMPLETE, SLOW, FAST], objectives()), last=False) == 8
    assert rule.resumes(History.of([*COMPLETE, FAST, SLOW], objectives()), last=False) == 8
    unlikely = trial(7, "paused", [0.2], 1.8, seconds=2.0)  # between LAST_RESUME and 1 times the mean gain
    assert rule.resumes(History.of([*COMPLETE, unlikely], objectives()), last=False) is None
    assert rule.resumes(History.of([*COMPLETE, unlikely], objectives()), last=True) == 7


def test_nothing_is_resumed_when_nothing_is_paused():
    lost = trial(7, "pruned", [math.nan], 1.0)
    others = [lost, trial(8, "running", [0.3], 1.0), trial(9, "failed", [0.3], 1.0), trial(10, "pruned", [], 1.0)]
    assert GainRate(patience=0.0, first=1).resumes(History.of([*COMPLETE, *others], objectives()), last=True) is None


def test_the_reason_states_the_gain_the_threshold_and_the_better_trials():
    stop = GainRate(patience=9.0, first=3).should_stop(
        trial(9, "running", [0.1], 7.9), History.of(COMPLETE, objectives())
    )
    assert re.fullmatch(
        r"epoch 1: accuracy 0\.1, expected hypervolume gain [-\d.e]+/s, below the threshold [-\d.e]+/s; "
        r"better at no higher cost: trials 0, 1, 2",
        stop.reason,
    )
    assert (stop.epoch, stop.threshold, stop.beaten_by) == (1, 0.2, (0, 1, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": -0.1}, "patience=-0.1: it must be a number from 0"),
        ({"patience": True}, "patience=True: it must be a number from 0"),
        ({"patience": math.nan}, "patience=nan: it must be a number from 0"),
        ({"first": 0}, "first=0: it must be a whole number from 1"),
        ({"first": 2.0}, "first=2.0: it must be a whole number from 1"),
        ({"target": "high"}, "target='high': it must be a number or null"),
        ({"target": True}, "target=True: it must be a number or null"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GainRate(**{"patience": 0.03, "first": 5} | settings)
