"""What a run prints: the progress, the front, baselines, and JSON for programs."""

import io
import json
import math
import re
from dataclasses import replace

import pytest
from tiny_task import OBJECTIVES

from search.budget import stopwatch
from search.budget.deadline import Deadline
from search.report.baselines import describe_baselines, describe_defeat
from search.report.characters import character_plot
from search.report.json_lines import JsonReporter
from search.report.progress import ProgressReporter
from search.report.status import SEPARATOR, StatusLine, TimedConsole, wrapped
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


def reporter_of(level="text", *, dimensions=frozenset(), width=200, terminal=False, **settings):
    console = TimedConsole(file=io.StringIO(), width=width, highlight=False, soft_wrap=True, force_terminal=terminal)
    status = StatusLine(Deadline(), console, level=level)
    return ProgressReporter(OBJECTIVES, 9, dimensions, status=status, **settings)


@pytest.fixture
def reporter():
    return reporter_of(dimensions={"model.depth", "attention.linformer.rank", "train.lr"})


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


BEATEN = replace(
    COMPLETE,
    number=12,
    state="paused",
    metric=None,
    architecture={**ARCHITECTURE, "train": {"epochs": 9, "lr": 0.01}},
    curve=[(epoch, 0.4) for epoch in range(1, 8)],
    stop=Stop("epoch 7: low gain", 7, beaten_by=(0, 3, 5)),
)
OTHERS = {number: replace(COMPLETE, number=number) for number in (0, 3, 5, 12)}
FEW = replace(BEATEN, stop=Stop("", 7, beaten_by=(0,)))
MANY = replace(BEATEN, stop=Stop("", 7, beaten_by=(0, 3, 5, 12, 12)))
DEARER = {number: replace(other, costs={"latency_ms": 9.0}) for number, other in OTHERS.items()}
OVER = replace(COMPLETE, state="pruned", metric=None, curve=[], stop=Stop("latency_ms 3 is over the limit 2", 0))
LATE = replace(BEATEN, stop=Stop("the time budget is used up", 7))
SLOW = replace(
    BEATEN, stop=Stop("epoch 7: accuracy 0.4, expected hypervolume gain 2e-4/s, below the threshold 6e-4/s", 7)
)
BETTER = "linformer: paused after 7 of 9 epochs; 0, 3 and 5 do better"
SHORT = "linformer: paused after 7/9; 0, 3 and 5 do better"
GAIN = "linformer: paused after 7 of 9 epochs: expected hypervolume gain 2e-4/s"


@pytest.mark.parametrize(
    ("trial", "others", "width", "line"),
    [
        (COMPLETE, {}, 100, "*   0     0.2   0.9000  linformer 2x16 rank=8 lr=0.01"),
        (replace(COMPLETE, number=4, metric=0.1), {}, 100, "    4     0.2   0.1000  linformer 2x16 rank=8 lr=0.01"),
        (COMPLETE, {}, 40, "*   0     0.2   0.9000  linformer ..."),
        (BEATEN, OTHERS, 120, f"   12     0.2   0.4000  {BETTER} at no higher latency"),
        (BEATEN, DEARER, 120, f"   12     0.2   0.4000  {BETTER}"),
        (BEATEN, OTHERS, 100, f"   12     0.2   0.4000  {SHORT} at no higher latency"),
        (BEATEN, OTHERS, 80, f"   12     0.2   0.4000  {SHORT}"),
        (BEATEN, OTHERS, 70, "   12     0.2   0.4000  linformer: paused after 7/9; 0 does better"),
        (BEATEN, OTHERS, 60, "   12     0.2   0.4000  linformer: paused after 7/9"),
        (SLOW, OTHERS, 130, f"   12     0.2   0.4000  {GAIN}, below the threshold 6e-4/s"),
        (SLOW, OTHERS, 100, f"   12     0.2   0.4000  {GAIN}"),
        (SLOW, OTHERS, 80, "   12     0.2   0.4000  linformer: paused after 7 of 9 epochs"),
        (
            FEW,
            OTHERS,
            100,
            "   12     0.2   0.4000  linformer: paused after 7 of 9 epochs; 0 does better at no higher latency",
        ),
        (
            MANY,
            OTHERS,
            120,
            "   12     0.2   0.4000  linformer: paused after 7 of 9 epochs; 0, 3, 5 and 2 more do better at no higher "
            "latency",
        ),
        (OVER, OTHERS, 100, "    0     0.2           linformer: not trained: latency_ms 3 is over the limit 2"),
        (
            LATE,
            OTHERS,
            100,
            "   12     0.2   0.4000  linformer: paused after 7 of 9 epochs: the time budget is used up",
        ),
        (FAILED, {}, 100, "    2                   failed: RuntimeError: out of luck"),
    ],
)
def test_an_ended_trial_is_a_line_that_fits_the_width(trial, others, width, line):
    reporter = reporter_of(
        dimensions={"model.depth", "attention.linformer.rank", "train.lr"}, width=width, terminal=width != 100
    )
    reporter.trial_ended(trial, [*{0: COMPLETE, **others, trial.number: trial}.values()])
    (shown,) = re.sub(r"\x1b\[[\d;]*m", "", printed(reporter)).splitlines()
    assert len(shown) <= width
    assert shown == line


def test_the_columns_of_the_trials_have_names(reporter):
    reporter.begin([])
    reporter.trial_ended(replace(COMPLETE, metric=0.25), TRIALS)
    names, values = printed(reporter).splitlines()
    for name, value in (("trial", "0"), ("ms", "0.2"), ("accuracy", "0.2500")):
        assert names.index(name) + len(name) == values.index(f" {value} ") + len(value) + 1


@pytest.mark.parametrize(
    ("level", "count"), [("quiet", 0), ("text", 3), ("verbose", 4)]
)  # a note, names of columns, a trial, an epoch
def test_how_much_is_printed_of_a_run(level, count):
    reporter = reporter_of(level)
    reporter.note("the baselines")
    reporter.begin([])
    reporter.progress(RUNNING)
    reporter.progress(replace(RUNNING, curve=[(1, 0.5)]))
    reporter.trial_ended(COMPLETE, [COMPLETE])
    assert len(printed(reporter).splitlines()) == count
    reporter.print_end("the space is exhausted")
    reporter.print_front([COMPLETE])
    assert "The run ends: the space is exhausted.\n" in printed(reporter)
    assert "The front: 1 of 1 trials" in printed(reporter)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_obeyed(monkeypatch, no_color, coloured):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    reporter = reporter_of(terminal=True)
    reporter.trial_ended(COMPLETE, [COMPLETE])
    assert bool(re.search(r"\x1b\[[\d;]*3\d", printed(reporter))) == coloured


@pytest.mark.parametrize("level", ["quiet", "text", "json"])
def test_a_phase_is_printed_at_once_unless_the_run_is_quiet(level):
    console = TimedConsole(file=io.StringIO(), width=200, soft_wrap=True)
    StatusLine(Deadline(), console, level=level).phase("reading the data")
    expected = {
        "quiet": "",
        "text": "reading the data ...\n",
        "json": '{"event": "phase", "text": "reading the data"}\n',
    }
    assert console.file.getvalue() == expected[level]


def test_the_seconds_of_a_phase_are_those_of_all_its_parts():
    deadline = Deadline()
    status = StatusLine(deadline, TimedConsole(file=io.StringIO()))
    counted = ["training replacement 1 of 2 (0-attention-none)", "training replacement 2 of 2 (0-feed_forward-0.5)"]
    for text in [*counted, "importing PyTorch, Optuna", "training, 3 epochs", "training, 1 of 3 epochs: loss 2", ""]:
        status.phase(text)
    assert list(deadline.stopwatch.seconds) == ["training replacement", "importing PyTorch, Optuna", "training"]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (60, ["0:48 · 7/10 trials · front 4 · 0:11 to n_trials", "  trial 7: linformer · epoch 2/9 accuracy 0.5"]),
        (80, ["0:48 · 7/10 trials · front 4 · 0:11 to n_trials · trial 7: linformer", "  epoch 2/9 accuracy 0.5"]),
        (100, ["0:48 · 7/10 trials · front 4 · 0:11 to n_trials · trial 7: linformer · epoch 2/9 accuracy 0.5"]),
        (10, ["0:48", "  7/10 trials", "  front 4", "  0:11 to n_trials", "  trial 7: linformer"]),
    ],
)
def test_a_status_that_is_wider_than_the_terminal_is_shown_whole(width, shown):
    text = "0:48 · 7/10 trials · front 4 · 0:11 to n_trials · trial 7: linformer · epoch 2/9 accuracy 0.5"
    lines = wrapped(text, width)
    assert lines[: len(shown)] == shown
    assert SEPARATOR.join(line.strip() for line in lines) == text


def test_the_live_view_shows_what_each_worker_trains_and_the_front_so_far():
    running = [
        replace(RUNNING, number=7 + at, worker=f"here:{at}", curve=[(1, 0.5)], architecture=ARCHITECTURE)
        for at in range(2)
    ]
    cheap = replace(COMPLETE, number=4, costs={**COSTS, "latency_ms": 0.05}, metric=0.7)
    records = [COMPLETE, cheap, *running]
    reporter = reporter_of(terminal=True, read=lambda: records)
    reporter.progress(running[0])
    view = reporter._view
    assert view[0] == "  here:0 · trial 7: linformer · epoch 1/3 accuracy 0.500"
    assert view[1] == "  here:1 · trial 8: linformer · epoch 1/3 accuracy 0.500"
    assert sum(line.count("*") for line in view) == 2 + 1, "two members, and the legend"
    assert reporter_of(read=lambda: records)._view == (), "not outside of a terminal"


def test_the_plot_in_characters_has_each_trial_at_its_place():
    points = {0: (1.0, 0.0), 1: (10.0, 0.5), 2: (100.0, 1.0), 3: (100.0, 0.5)}
    records = [replace(COMPLETE, number=at, costs={"latency_ms": x}, metric=y) for at, (x, y) in points.items()]
    lines = character_plot(records, OBJECTIVES, width=3 + 21, height=5)
    assert lines == [
        "   accuracy against latency_ms (logarithmic); * front, . others",
        "1 |" + " " * 20 + "*",
        "  |",
        "  |" + " " * 10 + "*" + " " * 9 + ".",
        "  |",
        "0 |*",
        "  +" + "-" * 21,
        "   1" + " " * 17 + "100",
    ]
    assert character_plot(records[:1], OBJECTIVES) == character_plot([], OBJECTIVES) == []
    assert character_plot([replace(COMPLETE, metric=math.nan), FAILED], OBJECTIVES) == []


def test_json_has_an_object_a_line_with_the_numbers_of_the_study():
    lines = []
    reporter = JsonReporter(OBJECTIVES, 9, [], write=lines.append)
    others = [*OTHERS.values(), replace(COMPLETE, number=1, metric=math.nan)]
    reporter.note("a note")
    reporter.begin([])
    reporter.progress(replace(RUNNING, curve=[(1, 0.5)]))
    reporter.trial_ended(BEATEN, others)
    reporter.forward(lines[-1])
    reporter.forward("a worker was killed")
    with reporter.remeasuring():
        pass
    reporter.print_front(others)
    reporter.print_end("the space is exhausted")
    reporter.print_seconds(3.0, tracking_s=0.5)
    events = [json.loads(line) for line in lines]
    names = ["message", "trial_progress", "trial_ended", "trial_ended", "message", "phase", "front", "run_ended"]
    assert [each["event"] for each in events] == [*names, "seconds"]
    assert events[1] == {**events[1], "trial": 3, "epoch": 1, "epochs": 3, "metric": 0.5}
    assert events[2]["ending"] == f"{BETTER.removeprefix('linformer: ')} at no higher latency"
    assert (events[2]["state"], events[2]["costs"], events[2]["beaten_by"]) == ("paused", COSTS, [0, 3, 5])
    assert events[3] == events[2], "as the other worker wrote it"
    assert {member["trial"] for member in events[6]["members"]} == {0, 3, 5, 12}
    assert events[6]["members"][0]["architecture"] == ARCHITECTURE
    assert events[6]["hypervolume"] == OBJECTIVES.hypervolume(others)
    assert events[7]["reason"] == "the space is exhausted"


def test_the_front_is_printed_as_a_table_with_a_summary(reporter):
    reporter.print_front(TRIALS)
    shown = printed(reporter)
    assert "The front: 1 of 4 trials" in shown
    assert "0.2 ±2.0%" in shown
    assert "linformer depth=2 rank=8 lr=0.01" in shown
    assert "1 point, 1 mechanism (linformer). The best accuracy is 0.9000.\n" in shown


@pytest.mark.parametrize("width", [80, 100])
def test_on_a_terminal_no_line_is_longer_and_no_word_is_broken(width):
    reporter = reporter_of(terminal=True, width=width, dimensions={"model.depth", "attention.linformer.rank"})
    cheap = replace(COMPLETE, number=4, costs={**COSTS, "latency_ms": 0.05}, metric=0.7)
    address = "http://127.0.0.1:5000/" + "x" * width
    reporter.print_front([COMPLETE, cheap])
    reporter.note(f"The study in MLflow: {address}")
    shown = re.sub(r"\x1b\[[\d;]*m", "", printed(reporter))
    assert [line for line in shown.splitlines() if len(line) > width] == [address]
    for words in ("The best accuracy is 0.9000; the cheapest has 0.25 of its latency_ms.", "linformer depth=2 rank=8"):
        assert words in re.sub(r"\s+", " ", shown)
    assert ("parameters" in shown) == (width == 100)


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
    reporter.print_seconds(100.0, tracking_s=2.0)
    shares = "training 80 s (80%), measuring latency 15 s (15%), tracking 2 s (2%), other 3 s (3%)"
    assert printed(reporter).endswith(f"100 s: {shares}; training overhead 4%\n")


def test_the_parts_of_the_other_seconds_are_named_the_largest_first(reporter):
    trained = replace(COMPLETE, training_s=60.0, latency_s=15.0)
    reporter.trial_ended(trained, [trained])
    parts = {"reading the data": 0.4, "fitting baselines": 3.0, stopwatch.RUNNING: 80.0, "choosing trials": 6.0}
    reporter.print_seconds(100.0, tracking_s=2.0, parts=parts)
    named = "the rest 9 s, choosing trials 6 s, starting and storing trials 5 s, fitting baselines 3 s"
    *_, total, other = printed(reporter).splitlines()
    assert "other 23 s (23%)" in total
    assert other == f"Of the other 23 s: {named}."


def test_a_stopwatch_counts_inner_activities_apart():
    seconds = [0.0]
    counted = stopwatch.Stopwatch(lambda: seconds[0])
    counted.phase("import")
    seconds[0] = 2.0
    counted.phase("read")
    seconds[0] = 5.0
    counted.phase("")
    seconds[0] = 6.0  # nothing
    for _ in range(2):
        with counted.measured("run"):
            seconds[0] += 1.0
            with counted.measured("inner"):
                seconds[0] += 10.0
            seconds[0] += 1.0
    assert counted.seconds == {"import": 2.0, "read": 3.0, "run": 4.0, "inner": 20.0}


@pytest.fixture
def clock(monkeypatch):
    """The seconds of a monotonic clock, to be changed by the test."""
    seconds = [0.0]
    monkeypatch.setattr("search.report.progress.time.monotonic", lambda: seconds[0])
    return seconds


def test_the_time_left_is_that_of_the_trials_not_ended_at_the_speed_of_this_worker(clock):
    made = reporter_of()
    clock[0] = 65.0
    made.trial_ended(COMPLETE, TRIALS)
    assert made.status_text().endswith(" · 6:30 to n_trials")  # six trials of 65 s


def test_remeasuring_counts_as_measuring_latency(reporter, clock):
    with reporter.remeasuring():
        clock[0] += 5.0
    reporter.print_seconds(20.0, tracking_s=0.0)
    assert (
        printed(reporter)
        == "20 s: training 0 s (0%), measuring latency 5 s (25%), tracking 0 s (0%), other 15 s (75%)\n"
    )


def test_the_summary_has_the_best_trial_and_the_cost_of_the_cheapest(reporter):
    cheap = replace(COMPLETE, number=4, costs={**COSTS, "latency_ms": 0.05}, metric=0.7)
    reporter.print_front([COMPLETE, cheap])
    assert "The best accuracy is 0.9000; the cheapest has 0.25 of its latency_ms." in printed(reporter)
