"""The arrays of ``History``, compared with the records one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search.study.history import History
from search.study.records import Objectives, Record

OBJECTIVES = Objectives("accuracy", "maximize", ("latency_ms", "parameters"), chance=0.0, best=1.0, ceilings=(9.0, 9.0))
INF, NAN = float("inf"), float("nan")


def random_record(random, number):
    """A trial in any state; its curve may repeat or skip epochs and have non-finite metrics."""
    state = random.choice(["running", "complete", "pruned", "paused", "failed"])
    epochs = random.integers(1, 8, random.integers(5))
    metrics = random.choice([0.0, 0.25, 0.5, NAN, INF, -INF], len(epochs), p=[0.3, 0.3, 0.25, 0.05, 0.05, 0.05])
    return Record(
        number,
        str(state),
        costs={name: float(random.integers(1, 4)) for name in OBJECTIVES.costs[: random.integers(3) or 2]}
        if state != "complete"
        else dict(zip(OBJECTIVES.costs, random.integers(1, 4, 2).astype(float).tolist(), strict=True)),
        curve=[(int(epoch), float(metric)) for epoch, metric in zip(epochs, metrics, strict=True)],
        metric=float(random.choice([0.5, 0.75, NAN, INF])) if state == "complete" else None,
        architecture={"train": {"epochs": 9}} if random.random() < 0.5 else {},
        cpu_seconds=random.random(len(epochs)).cumsum().tolist() if random.random() < 0.5 else [],
    )


def expected(record, width):
    """The row of a record."""
    last = dict(record.curve)
    losses = [NAN if epoch not in last else INF for epoch in range(1, width + 1)]
    for epoch, metric in last.items():
        if np.isfinite(metric):
            losses[epoch - 1] = -metric
    complete = record.state == "complete" and bool(np.isfinite(record.metric))
    epochs = record.curve[-1][0] if record.curve else 0
    return {
        "numbers": record.number,
        "costs": [record.costs.get(name, INF) for name in OBJECTIVES.costs],
        "losses": losses,
        "complete": complete,
        "finals": -record.metric if complete else INF,
        "paused": record.state == "paused",
        "epochs": epochs,
        "seconds": (record.cpu_seconds or [epochs])[-1],
    }


def assert_holds(history, records):
    assert len(history) == len(records)
    assert history.records() == list(records)
    for row, record in enumerate(records):
        assert history.row(record.number) == row
        assert history.record(record.number) is record
        for name, value in expected(record, history.losses.shape[1]).items():
            np.testing.assert_array_equal(getattr(history, name)[row], value, err_msg=f"{name} of {record}")


def test_rows_equal_their_records_after_any_number_of_updates():
    random = np.random.default_rng(0)
    for size in (1, 2, 5, 33):
        history, latest = History(OBJECTIVES), {}
        for _ in range(3 * size):
            record = random_record(random, int(random.integers(size)))
            history.add(record)
            latest[record.number] = record  # a dict keeps the order of updated keys
        assert_holds(history, list(latest.values()))
        rebuilt = History.of(latest.values(), OBJECTIVES)
        for name in ("numbers", "costs", "complete", "finals", "paused", "epochs", "seconds"):
            np.testing.assert_array_equal(getattr(rebuilt, name), getattr(history, name))


def test_a_study_without_trials_has_no_rows():
    history = History(OBJECTIVES)
    assert (len(history), history.costs.shape, history.records()) == (0, (0, 2), [])
    assert len(history.losses_at(1)) == len(history.seconds_left) == 0


def test_rows_are_kept_when_the_arrays_grow():
    records = [Record(7 * n % 40, "running", curve=[(epoch, 0.5) for epoch in range(1, n + 1)]) for n in range(40)]
    history = History(OBJECTIVES)
    for count, record in enumerate(records, start=1):
        history.add(record)
        if count % 13 == 0 or count == 40:
            assert_holds(history, records[:count])
    assert history.losses.shape == (40, 39)


def test_a_trial_that_goes_on_keeps_its_row():
    paused = Record(1, "paused", curve=[(1, 0.2)])
    history = History.of([Record(0, "running"), paused, Record(2, "running")], OBJECTIVES)
    again = Record(1, "running", curve=[(1, 0.2), (2, 0.4)])
    for record in (again, replace(again, state="complete", metric=0.4, costs=dict.fromkeys(OBJECTIVES.costs, 1.0))):
        history.add(record)
        assert history.numbers.tolist() == [0, 1, 2]
        assert history.record(1) is record
    assert history.complete.tolist() == [False, True, False]
    assert not history.paused.any()


def test_the_later_entry_of_a_repeated_epoch_counts():
    history = History.of([Record(0, "running", curve=[(1, 0.1), (2, 0.9), (3, 0.3), (2, NAN)])], OBJECTIVES)
    assert history.losses.tolist() == [[-0.1, INF, -0.3]]
    assert history.epochs.tolist() == [2]


def test_losses_at_an_epoch():
    history = History.of([Record(0, "running", curve=[(2, 0.5)]), Record(1, "running")], OBJECTIVES)
    for epoch, wanted in {-1: [NAN, NAN], 0: [NAN, NAN], 1: [NAN, NAN], 2: [-0.5, NAN], 3: [NAN, NAN]}.items():
        np.testing.assert_array_equal(history.losses_at(epoch), wanted)


def test_seconds_left_are_the_remaining_epochs_at_the_trials_own_speed():
    plan = {"train": {"epochs": 4}}
    curve = [(1, 0.5), (2, 0.5)]
    records = [
        Record(0, "running", curve=curve, architecture=plan, cpu_seconds=[3.0, 7.0]),
        Record(1, "running", curve=curve, architecture=plan),  # no seconds: epochs
        Record(2, "running", curve=curve),  # unknown number of epochs: the highest of all, 6
        Record(3, "running", architecture=plan),
        Record(4, "complete", curve=[(epoch, 0.5) for epoch in range(1, 7)], architecture=plan),  # beyond its plan
    ]
    np.testing.assert_array_equal(History.of(records, OBJECTIVES).seconds_left, [7.0, 2.0, 4.0, NAN, 0.0])


def test_cheaper_or_equal_are_the_other_trials_with_no_higher_cost():
    random = np.random.default_rng(0)
    points = random.integers(1, 4, (20, 2)).tolist()
    records = [Record(n, "running", dict(zip(OBJECTIVES.costs, point, strict=True))) for n, point in enumerate(points)]
    history = History.of([*records, Record(20, "running", {"latency_ms": 1.0})], OBJECTIVES)  # parameters unknown
    points.append([1, INF])
    for row, point in enumerate(points):
        wanted = [n != row and all(a <= b for a, b in zip(other, point, strict=True)) for n, other in enumerate(points)]
        assert history.cheaper_or_equal(row).tolist() == wanted
