"""What reports tell of latencies that were measured at different times."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from tiny_task import OBJECTIVES

from search.report import picture
from search.report.console import FrontPrinter
from search.report.explain import explain
from search.report.timings import describe_difference, describe_timings, format_time
from search.study.records import Objectives, Record, Timing
from search.tracking.note import study_data

ARCHITECTURE = {"model": {"depth": 2}, "pattern": ["linformer"], "attention": {"linformer": {"rank": 8}}}
START = 1_700_000_000.0


def trial(number, ms, accuracy, at, *, host="here", reference_ms=1.0, again=None):
    """A complete trial measured ``at`` seconds after START, and ``again`` seconds after it if that is given."""
    first = Timing(ms, 0.01, host, START + at, reference_ms)
    timings = (first,) if again is None else (first, replace(first, at=START + again))
    costs = {"latency_ms": ms, "parameters": 10.0}
    return Record(number, "complete", costs, [(1, accuracy)], accuracy, ARCHITECTURE, timings)


FRONT = [trial(0, 0.2, 0.6, 0, again=100), trial(1, 0.4, 0.9, 40, again=100)]
DOMINATED = trial(2, 0.45, 0.8, 60)
TOGETHER = f"latencies of the front were measured together at {format_time(START + 100)}"


@pytest.mark.parametrize(
    ("members", "others", "text"),
    [
        (FRONT, [], TOGETHER),
        (FRONT, FRONT, TOGETHER),
        (FRONT, [*FRONT, DOMINATED], f"{TOGETHER}; those of 1 other trial at other times"),
        (FRONT, [DOMINATED, trial(3, 0.5, 0.1, 70)], f"{TOGETHER}; those of 2 other trials at other times"),
        (FRONT, [trial(3, 0.5, 0.1, 7, again=100)], TOGETHER),
        (
            [FRONT[0], DOMINATED],
            [],
            "latencies of the front were measured at 2 different times, "
            f"{format_time(START + 60)} to {format_time(START + 100)}",
        ),
        (
            [FRONT[0], trial(3, 0.5, 0.9, 100, host="there")],
            [DOMINATED],
            f"latencies of the front were measured at 2 different times on 2 hosts, {format_time(START + 100)} to "
            f"{format_time(START + 100)}; those of 1 other trial at other times",
        ),
        ([], [DOMINATED], ""),
        ([trial(0, 0.2, 0.6, 0, reference_ms=0.0)], [DOMINATED], ""),  # computed, not measured
    ],
)
def test_times_of_measurement_are_described(members, others, text):
    assert describe_timings(members, others, OBJECTIVES) == text


def test_times_of_measurement_are_omitted_if_latency_is_no_objective():
    objectives = Objectives("accuracy", "maximize", ("parameters",), chance=0.0, best=1.0, ceilings=(99.0,))
    assert describe_timings(FRONT, [DOMINATED], objectives) == ""
    assert describe_difference(FRONT[0], DOMINATED, objectives) == ""


@pytest.mark.parametrize(
    ("record", "reference", "text"),
    [
        (FRONT[0], FRONT[1], ""),
        (FRONT[1], DOMINATED, f"latency measured at {format_time(START + 100)}, 40 s after that of trial 2"),
        (DOMINATED, FRONT[1], f"latency measured at {format_time(START + 60)}, 40 s before that of trial 1"),
        (trial(3, 1, 1, 100, host="there"), FRONT[0], "latency measured on there at "),
        (Record(3, "failed"), DOMINATED, ""),
    ],
)
def test_a_difference_between_times_of_measurement_is_described(record, reference, text):
    described = describe_difference(record, reference, OBJECTIVES)
    assert described.startswith(text)
    assert bool(described) == bool(text)


def test_the_front_the_plot_and_the_note_tell_which_latencies_were_measured_together():
    records = [*FRONT, DOMINATED]
    printer = FrontPrinter(OBJECTIVES, set())
    printer.console = Console(file=io.StringIO(), width=200)
    printer.print_front(records)
    printed = printer.console.file.getvalue()
    assert printed.endswith(f"L{TOGETHER[1:]}; those of 1 other trial at other times.\n")
    page = picture.html(records, OBJECTIVES, title="x")
    assert f"L{TOGETHER[1:]}; those of 1 other trial at other times.</p>" in page
    note = study_data(records, OBJECTIVES, {}).tags["mlflow.note.content"]
    assert f"{TOGETHER}; those of 1 other trial at other times\n" in note


def test_an_explanation_tells_which_better_trials_were_measured_at_another_time():
    records = {each.number: each for each in (*FRONT, DOMINATED)}
    lines = list(explain(2, records, {}, OBJECTIVES, set()))
    (better,) = [line for line in lines if line.startswith("     1  ")]
    assert better.endswith(f"(latency measured at {format_time(START + 100)}, 40 s after that of trial 2)")
    records[2] = trial(2, 0.45, 0.8, 60, again=100)
    assert not [line for line in explain(2, records, {}, OBJECTIVES, set()) if "measured at" in line]
