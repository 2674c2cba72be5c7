"""Patience: a study ends when its front has stopped growing, told from recorded trials."""

import random
from dataclasses import replace

import pytest
from tiny_task import Reports, tiny_search, tiny_study

from search.budget.gain import describe_gain, gain_per_hour
from search.budget.patience import Patience
from search.study.records import Objectives, Record, State
from search.study.store import TrialStore
from search.worker import work

OBJECTIVES = Objectives("accuracy", "maximize", ("latency_ms",), 0.0, 1.0, (1.0,))


def ended(number, accuracy, ms, *, at=None, **changes):
    """A complete trial that took 10 s."""
    at = float(number) if at is None else at
    costs = {"latency_ms": ms}
    record = Record(number, State.COMPLETE, costs, [(1, accuracy)], accuracy, training_s=8.0, latency_s=2.0)
    return replace(record, ended_at=at, **changes)


GROWS = [ended(number, 0.5 + 0.05 * number, 0.5) for number in range(6)]
SETTLED = [*GROWS, *(ended(6 + number, 0.1, 0.9) for number in range(4))]  # the last four are dominated


@pytest.mark.parametrize(
    ("patience", "records", "ends"),
    [
        (Patience(trials=4), SETTLED, True),
        (Patience(trials=5), SETTLED, False),
        (Patience(trials=4), SETTLED[:-1], False),
        (Patience(trials=1), GROWS, False),
        (Patience(trials=6), GROWS, False),  # there is nothing before to compare with
        (Patience(trials=1), [], False),
        (Patience(seconds=40.0), SETTLED, True),
        (Patience(seconds=31.0), SETTLED, True),  # the fourth trial from the end exceeds it
        (Patience(seconds=41.0), SETTLED, False),
        (Patience(seconds=1000.0), SETTLED, False),
        (Patience(trials=1), [*GROWS, ended(6, 0.7501, 0.5)], True),  # grows by less than a thousandth
        (Patience(trials=1), [*GROWS, ended(6, 0.7600, 0.5)], False),
        (Patience(trials=1), [*GROWS, ended(6, 0.1, 0.05)], False),  # cheaper than all others
        (Patience(trials=1), [*SETTLED, Record(10, State.RUNNING)], True),
        (Patience(trials=4), [*SETTLED[:-1], Record(9, State.RUNNING)], False),  # a running trial has not ended
        (Patience(trials=2), [*GROWS, ended(6, 0.9, 0.5, at=2.5)], True),  # in the order of their ends
        (Patience(trials=3), [*GROWS[:3], *(ended(n, 0.9, 0.9, at=-n) for n in range(3, 6))], False),
        (Patience(trials=2), [ended(n, 0.3, 0.5, state=State.FAILED, metric=None) for n in range(3)], True),
    ],
)
def test_a_study_ends_when_its_front_has_stopped_growing(patience, records, ends):
    random.Random(0).shuffle(records := list(records))
    reason = patience.reason_to_end(records, OBJECTIVES)
    assert bool(reason) is ends
    assert not ends or reason.startswith("the front has stopped growing: the last ")


def test_a_study_ends_when_its_front_grows_more_slowly_than_expected():
    gain = gain_per_hour(SETTLED, OBJECTIVES)
    assert gain > 0
    assert not Patience(min_gain=0.99 * gain).reason_to_end(SETTLED, OBJECTIVES)
    reason = Patience(min_gain=1.01 * gain).reason_to_end(SETTLED, OBJECTIVES)
    assert reason == f"its hypervolume grows by {gain:.2g} an hour, less than min_gain={1.01 * gain:g}"
    assert not Patience(min_gain=1e9).reason_to_end(SETTLED[:3], OBJECTIVES), "too few for an estimate"
    assert Patience(trials=4, min_gain=1e-9).reason_to_end(SETTLED, OBJECTIVES).startswith("the front has stopped")


def test_the_reason_names_the_trials_and_their_time():
    assert Patience(trials=4).reason_to_end(SETTLED, OBJECTIVES) == (
        "the front has stopped growing: the last 4 trials increased its hypervolume by at most 0.1%"
    )
    assert "the last 4 trials, 35 s of work, increased" in Patience(seconds=35.0).reason_to_end(SETTLED, OBJECTIVES)


@pytest.mark.slow
def test_patience_ends_a_run_and_every_later_one(tmp_path):
    store = TrialStore(tiny_study(f"sqlite:///{tmp_path / 'studies.db'}"))
    search = replace(tiny_search(), objectives=replace(OBJECTIVES, ceilings=(1e-9,)))  # nothing is below the ceiling
    for _ in range(2):
        why = work(store, search, None, Reports(), lambda trial: None, grace_s=60, patience=Patience(trials=2))
        assert why.startswith("the front has stopped growing: the last 2 trials")
        records = store.records()
        assert len(records) == 3
        assert all(record.ended_at for record in records)


@pytest.mark.parametrize(
    ("records", "gain"),
    [
        (GROWS[:3], None),  # too few
        (GROWS[:4], 0.5 * (0.65 - 0.55) / (20 / 3600)),  # two trials of 10 s each
        (GROWS, 0.5 * (0.75 - 0.6) / (30 / 3600)),
        (GROWS[::-1], 0.5 * (0.75 - 0.6) / (30 / 3600)),  # in the order of their end
        ([*GROWS, *(ended(6 + number, 0.1, 0.9) for number in range(6))], 0.0),
        ([replace(each, training_s=0.0, latency_s=0.0) for each in GROWS], None),
        ([replace(GROWS[3], ended_at=None), *GROWS[:3]], None),  # it runs
    ],
)
def test_the_gain_is_that_of_the_later_half_of_the_trials_per_hour_of_their_work(records, gain):
    found = gain_per_hour(records, OBJECTIVES)
    assert found == (None if gain is None else pytest.approx(gain))


def test_a_gain_is_described_in_short():
    described = {None: "", 0.0: "+0 an hour", 0.01234: "+0.012 an hour", 14.0: "+0.23 a minute"}
    assert {gain: describe_gain(gain) for gain in described} == described
