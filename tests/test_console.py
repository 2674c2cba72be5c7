import io
from dataclasses import replace

import pytest
from rich.console import Console
from tiny_task import OBJECTIVES

from search.report.baselines import describe_baselines, describe_defeat
from search.report.console import ConsoleReporter
from search.study.records import Record, Stop, Timing
from spaces.baselines import BaselineResult

ARCHITECTURE = {
    "model": {"_target_": "m.M", "depth": 2, "width": 16},
    "pattern": ["linformer", "linformer"],
    "attention": {"linformer": {"_target_": "l.L", "rank": 8}},
    "train": {"epochs": 3, "lr": 0.01},
}
COSTS = {"latency_ms": 0.2, "parameters": 1234.0}
COMPLETE = Record(0, "complete", COSTS, [(1, 0.5), (2, 0.9)], 0.9, ARCHITECTURE, [Timing(0.2, 0.02, "here", 0.0)])
PRUNED = Record(
    1, "pruned", {**COSTS, "latency_ms": 0.5}, [(1, 0.4)], None, ARCHITECTURE, stop=Stop("among the worst [2] of 3", 1)
)
FAILED = Record(2, "failed", error="RuntimeError: out of luck")
RUNNING = Record(3, "running", COSTS, (), None, ARCHITECTURE)
TRIALS = [COMPLETE, PRUNED, FAILED, RUNNING]


@pytest.fixture
def reporter():
    made = ConsoleReporter(OBJECTIVES, 9, {"model.depth", "attention.linformer.rank", "train.lr"})
    made.console = Console(file=io.StringIO(), width=200, highlight=False)
    return made


def printed(reporter):
    return reporter.console.file.getvalue()


def test_the_status_line(reporter):
    reporter.update_status(TRIALS)
    assert reporter.status_text() == "3/9 trials · 1 pruned · front 1 · hypervolume 0.680"
    reporter.progress(RUNNING)
    assert reporter.status_text().endswith(" · trial 3: linformer")
    reporter.progress(replace(RUNNING, curve=[(1, 0.5), (2, 0.75)]))
    assert reporter.status_text().endswith(" · trial 3: linformer · epoch 2/3 accuracy 0.750")
    reporter.progress(replace(RUNNING, curve=[(1, 0.5), (2, 0.75), (3, 0.8)]))
    assert reporter.status_text().endswith(" · trial 3: linformer · epoch 3/3 accuracy 0.800")
    reporter.trial_ended(COMPLETE, TRIALS)
    assert reporter.status_text().endswith(" to n_trials")
    reporter.waiting(2)
    assert reporter.status_text().endswith(" · waiting for 2 trials of other workers")


@pytest.mark.parametrize(
    ("trial", "line"),
    [
        (COMPLETE, "0  latency_ms     0.2  accuracy 0.900  linformer depth=2 rank=8 lr=0.01"),
        (
            PRUNED,
            "1  latency_ms     0.5  accuracy 0.400  linformer depth=2 rank=8 lr=0.01  pruned: among the worst [2] of 3",
        ),
        (FAILED, "2 failed: RuntimeError: out of luck"),
    ],
)
def test_an_ended_trial_is_printed_on_one_line(reporter, trial, line):
    reporter.trial_ended(trial, TRIALS)
    (shown,) = printed(reporter).splitlines()
    assert " ".join(shown.split()) == " ".join(line.split())


def test_the_front_is_printed_as_a_table_with_a_summary(reporter):
    reporter.print_front(TRIALS)
    shown = printed(reporter)
    assert "The front: 1 of 4 trials" in shown
    assert "0.2 ±2.0%" in shown
    assert "linformer depth=2 rank=8 lr=0.01" in shown
    assert "1 points, 1 mechanisms (linformer). The best accuracy is 0.9000; the cheapest has 1.00 of its" in shown


def test_baselines_are_rows_below_the_front_and_a_front_that_loses_is_said_to_lose(reporter):
    reporter._baselines = [
        BaselineResult("majority class", {"accuracy": 0.5}, {"accuracy": 0.45}, latency_ms=0.01, fit_s=0.0),
        BaselineResult("5-gram", {"accuracy": 0.95}, {"accuracy": 0.85}, latency_ms=0.125, fit_s=0.0),
    ]
    reporter.print_front([replace(COMPLETE, test_metrics={"accuracy": 0.8}), *TRIALS[1:]])
    shown = printed(reporter)
    rows = [line.split() for line in shown.splitlines() if "baseline" in line]
    assert rows[1][:2] == ["│", "baseline"]
    assert "0.9500" in rows[1]
    assert "0.8500" in rows[1]
    assert "0.125" not in rows[1], "latencies of the networks are not measured"
    assert "No model on the front beats 5-gram (accuracy 0.9500): the best has 0.9000. Try more epochs" in shown


@pytest.mark.parametrize(("accuracy", "loses"), [(0.89, False), (0.9, False), (0.91, True)])
def test_a_model_as_good_as_the_best_baseline_is_enough(accuracy, loses):
    baseline = BaselineResult("x", {"accuracy": accuracy}, {"accuracy": 1.0}, latency_ms=1.0, fit_s=0.0)
    assert bool(describe_defeat([COMPLETE], [baseline], OBJECTIVES)) is loses
    error = replace(OBJECTIVES, direction="minimize")
    assert bool(describe_defeat([COMPLETE], [baseline], error)) is (accuracy < 0.9)
    assert describe_defeat([COMPLETE], [], OBJECTIVES) == describe_defeat([], [baseline], OBJECTIVES) == ""


def test_baselines_and_chance_are_described_in_one_line():
    baseline = BaselineResult("x", {"accuracy": 0.75}, {"accuracy": 1.0}, latency_ms=1.0, fit_s=0.0)
    described = describe_baselines([baseline], OBJECTIVES)
    assert described == "Baselines, accuracy on validation: x 0.750; chance 0.333."
    assert describe_baselines([], OBJECTIVES) == ""


def test_an_empty_front_is_printed_as_a_message(reporter):
    reporter.print_front([PRUNED, FAILED])
    assert printed(reporter) == "The front is empty: no trial is complete.\n"


def test_seconds_are_printed_by_activity(reporter):
    trained = replace(COMPLETE, training_s=60.0, latency_s=15.0, overhead=0.02)
    again = replace(COMPLETE, number=1, training_s=120.0, latency_s=5.0, overhead=0.1)
    reporter.trial_ended(trained, [trained])
    reporter.progress(replace(RUNNING, number=1, training_s=100.0, latency_s=5.0))  # resumed
    reporter.trial_ended(again, [trained, again])
    reporter.print_seconds(100.0)
    shares = "training 80 s (80%), measuring latency 15 s (15%), other 5 s (5%)"
    assert printed(reporter).endswith(f"100 s: {shares}; training overhead 4%\n")


@pytest.fixture
def clock(monkeypatch):
    """The seconds of a monotonic clock, to be changed by the test."""
    seconds = [0.0]
    monkeypatch.setattr("search.report.console.time.monotonic", lambda: seconds[0])
    return seconds


def test_the_time_left_is_that_of_the_trials_not_ended_at_the_speed_of_this_worker(clock):
    made = ConsoleReporter(OBJECTIVES, 9, set())
    made.console = Console(file=io.StringIO(), width=200, highlight=False)
    clock[0] = 65.0
    made.trial_ended(COMPLETE, TRIALS)
    assert made.status_text().endswith(" · 6:30 to n_trials")  # six trials of 65 s


def test_remeasuring_counts_as_measuring_latency(reporter, clock):
    with reporter.remeasuring():
        clock[0] += 5.0
    reporter.print_seconds(20.0)
    assert printed(reporter) == "20 s: training 0 s (0%), measuring latency 5 s (25%), other 15 s (75%)\n"


def test_the_summary_has_the_best_trial_and_the_cost_of_the_cheapest(reporter):
    cheap = replace(COMPLETE, number=4, costs={**COSTS, "latency_ms": 0.05}, metric=0.7)
    reporter.print_front([COMPLETE, cheap])
    assert "The best accuracy is 0.9000; the cheapest has 0.25 of its latency_ms." in printed(reporter)
