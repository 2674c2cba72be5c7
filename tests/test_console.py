import io
from dataclasses import replace

import pytest
from rich.console import Console
from tiny_task import OBJECTIVES

from search.report.console import Display
from search.study.records import Record, Stop, Timing

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
EVERYONE = [COMPLETE, PRUNED, FAILED, RUNNING]


@pytest.fixture
def display():
    shown = Display(OBJECTIVES, 9, {"model.depth", "attention.linformer.rank", "train.lr"})
    shown.console = Console(file=io.StringIO(), width=200, highlight=False)
    return shown


def printed(display):
    return display.console.file.getvalue()


def test_the_progress_line(display):
    display.summarise(EVERYONE)
    assert display._line().plain == "3/9 trials · 1 pruned · front 1 · hypervolume 0.680"
    display.progress(RUNNING)
    assert display._line().plain.endswith(" · trial 3: linformer")
    display.progress(replace(RUNNING, curve=[(1, 0.5), (2, 0.75)]))
    assert display._line().plain.endswith(" · trial 3: linformer · epoch 2/3 accuracy 0.750")
    display.progress(replace(RUNNING, curve=[(1, 0.5), (2, 0.75), (3, 0.8)]))
    assert display._line().plain.endswith(" · trial 3: linformer · epoch 3/3 accuracy 0.800")
    display.ended(COMPLETE, EVERYONE)
    assert display._line().plain.endswith(" left")
    display.waiting(2)
    assert display._line().plain.endswith(" · waiting for 2 trials of other workers")


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
def test_a_trial_is_one_line(display, trial, line):
    display.ended(trial, EVERYONE)
    (shown,) = printed(display).splitlines()
    assert " ".join(shown.split()) == " ".join(line.split())


def test_the_front_is_a_table_with_a_summary(display):
    display.show_front(EVERYONE)
    shown = printed(display)
    assert "The front: 1 of 4 trials" in shown
    assert "0.2 ±2.0%" in shown
    assert "linformer depth=2 rank=8 lr=0.01" in shown
    assert "1 points, 1 mechanisms (linformer). The best accuracy is 0.9000; the cheapest has 1.00 of its" in shown


def test_an_empty_front(display):
    display.show_front([PRUNED, FAILED])
    assert printed(display) == "The front is empty: no trial was trained to the end.\n"


def test_where_the_time_went(display):
    trained = replace(COMPLETE, training_s=60.0, latency_s=15.0, overhead=0.02)
    again = replace(COMPLETE, number=1, training_s=20.0, overhead=0.1)
    display.ended(trained, [trained])
    display.ended(again, [trained, again])
    display.show_seconds(100.0)
    shares = "training 80 s (80%), measuring latency 15 s (15%), all else 5 s (5%)"
    assert printed(display).endswith(f"100 s: {shares}; of the training 4% outside the networks\n")
