"""python -m search.front STUDY --plot FILE: the front as an SVG, a PNG or a page."""

import re
import sys
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from tiny_task import TREE, opened, tiny_study

from search.front import main
from search.report import figure, picture
from search.study.records import Objectives, Record, State, Stop

ACCURACY = Objectives("accuracy", "maximize", ("latency_ms",), chance=0.1, best=1.0, ceilings=(9.0,))
LOSS = Objectives("bits_per_byte", "minimize", ("flops", "parameters"), chance=8.0, best=0.0, ceilings=(9e9, 9e6))


def record(number, cost, metric, names=("softmax",), state=State.COMPLETE, objectives=ACCURACY):
    final = metric if state == State.COMPLETE else None
    costs = dict.fromkeys(objectives.costs, cost)
    return Record(number, state, costs, [(1, metric)], metric=final, architecture={"pattern": list(names)})


MEMBERS = [
    record(0, 0.5, 0.4, ["linformer"]),
    record(1, 0.6, 0.5, ["longformer", "softmax"]),
    record(2, 1.5, 0.6, ["my<attention>&more"]),
]
OTHERS = [
    record(3, 1.0, 0.3, ["reformer"]),
    record(4, 1.4, 0.9, ["topk"], State.PAUSED),
    record(5, 1.4, float("nan"), ["topk"], State.PRUNED),
    record(6, 0.2, float("nan")),
    Record(7, State.FAILED, {}, architecture={"pattern": ["softmax"]}),
    Record(8, State.PRUNED, {"latency_ms": 3.0}, stop=Stop("the target is met", epoch=0)),
]


def texts_of_svg(file):
    return [text for element in ElementTree.parse(file).iter() if (text := (element.text or "").strip())]


def test_an_svg_is_well_formed_and_has_every_mechanism_of_the_front(tmp_path):
    file = tmp_path / "front.svg"
    picture.save(file, [*MEMBERS, *OTHERS], ACCURACY, title="mine")
    texts = texts_of_svg(file)
    assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    for name, number in (("linformer", 0), ("longformer+softmax", 1), ("my<attention>&more", 2)):
        assert f"{name} (1)" in texts
        assert f"{name}, trial {number}" in texts
    assert {"dominated (1)", "stopped early (1)", "mine"} <= set(texts)
    assert "3 of 9 trials are on the front; stopped before training: 1" in texts
    assert {"latency (ms), logarithmic scale", "accuracy on the validation split"} <= set(texts)
    assert not [text for text in texts if re.match("reformer|topk", text)]
    assert file.stat().st_size < 100_000


def test_titles_are_escaped_and_no_formula_is_parsed(tmp_path):
    file = tmp_path / "front.svg"
    picture.save(file, MEMBERS, ACCURACY, title="<script>$x^2$ & \\frac")
    assert "<script>$x^2$ & \\frac" in texts_of_svg(file)
    assert "<script>" not in file.read_text()


def test_the_same_trials_give_the_same_svg(tmp_path):
    for name in ("a.svg", "b.svg"):
        picture.save(tmp_path / name, MEMBERS, ACCURACY, title="mine")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(("count", "step"), [(2, 0.07), (14, 0.07), (14, 0.01)], ids=["two", "many", "close"])
def test_labels_overlap_neither_each_other_nor_points_of_the_front(count, step):
    members = [record(n, 0.4 * (1 + step) ** n, 0.1 + step * n, [f"mechanism{n % 4}"]) for n in range(count)]
    with mpl.rc_context(figure.STYLE):
        drawn = figure.draw([*members, *OTHERS], ACCURACY, title="mine")
    renderer = FigureCanvasAgg(drawn).get_renderer()
    (axes,) = drawn.axes
    labels = [text for text in axes.texts if isinstance(text, Annotation)]
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert len(boxes) >= min(count, 4)
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    points = axes.transData.transform([(member.costs["latency_ms"], member.metric) for member in members])
    assert not any(box.count_contains(points) for box in boxes)
    outer = axes.get_window_extent(renderer)
    assert all(outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1 for box in boxes)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.4, 3.0, [0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0]),
        (0.1, 9.0, [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]),
        (1.0, 1e6, [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]),
        (1.0, 1.1, [1.0, 1.02, 1.04, 1.06, 1.08, 1.1]),
    ],
)
def test_a_logarithmic_axis_has_at_least_four_round_ticks(low, high, ticks):
    axes = figure.Figure().add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    figure._set_ticks(axes)
    assert axes.get_xticks().tolist() == pytest.approx(ticks)


@pytest.mark.parametrize(
    "records", [[], OTHERS[-1:], OTHERS[1:2], MEMBERS[:1]], ids=["none", "failed", "paused", "one"]
)
@pytest.mark.parametrize(
    "suffix", ["svg", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in ("png", "html"))]
)
def test_few_trials_can_be_drawn(tmp_path, records, suffix):
    picture.save(tmp_path / f"front.{suffix}", records, ACCURACY, title="mine")


def test_minimized_metrics_and_several_costs_are_drawn_without_a_line(tmp_path):
    records = [record(n, 1e6 * n, 9 - n, objectives=LOSS) for n in range(1, 4)]
    drawn = figure.draw(records, LOSS, title="mine")
    (axes,) = drawn.axes
    assert axes.get_xlabel() == "FLOPs, logarithmic scale"
    assert axes.get_ylabel() == "bits per byte on the validation split (lower is better)"
    assert not [line for line in axes.lines if line.get_drawstyle() == "steps-post"]


@pytest.mark.parametrize(
    ("direction", "costs", "front", "line"),
    [
        ("maximize", ("latency_ms",), {0, 2}, [(1.0, 0.5), (2.0, 0.9), (4.0, 0.9)]),
        ("minimize", ("latency_ms",), {0, 1}, [(1.0, 0.5), (3.0, 0.4), (4.0, 0.4)]),
        ("maximize", ("latency_ms", "memory_mb"), {0, 1, 2}, None),  # no line with several costs
    ],
)
def test_each_trial_is_a_point_once_and_the_front_a_step_line(direction, costs, front, line):
    objectives = Objectives("accuracy", direction, costs, chance=0.1, best=1.0, ceilings=(9.0,) * len(costs))
    points = [(0.5, 1.0, 3.0), (0.4, 3.0, 1.0), (0.9, 2.0, 2.0), (0.45, 4.0, 4.0)]
    trials = [
        replace(
            record(number, 0, accuracy, ["linear" if number else "softmax"]), costs={"latency_ms": x, "memory_mb": y}
        )
        for number, (accuracy, x, y) in enumerate(points)
    ]
    trials += [record(4, 1.0, 0.3, state=State.PRUNED), Record(5, State.FAILED), Record(6, State.RUNNING)]
    (axes,) = figure.draw(trials, objectives, title="x").axes
    shown = {
        each.get_label(): each.get_gid().removeprefix(figure.TRIALS).split("-") for each in axes.lines if each.get_gid()
    }
    on_front = {
        int(number) for name, group in shown.items() if name.startswith(("linear", "softmax")) for number in group
    }
    assert on_front == front
    assert sorted(int(number) for group in shown.values() for number in group) == [0, 1, 2, 3, 4]
    steps = [each.get_xydata().tolist() for each in axes.lines if each.get_drawstyle() == "steps-post"]
    assert steps == ([[list(point) for point in line]] if line else [])


def test_the_page_is_small_needs_no_network_and_tells_of_each_point_what_is_known_of_its_trial(tmp_path):
    file = tmp_path / "front.html"
    picture.save(file, [*MEMBERS, *OTHERS], ACCURACY, title="mine")
    page = file.read_text()
    assert len(page) < 100_000
    assert not re.search(r"<(script|link|img|iframe)|@import|url\((?!#)", page)
    drawn = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    told = {
        int(re.match(r"trial (\d+): ", title)[1]): title
        for use in drawn.iter("{http://www.w3.org/2000/svg}use")
        for title in [use.findtext("{http://www.w3.org/2000/svg}title")]
        if title
    }
    assert told.keys() == {0, 1, 2, 3, 4}, "those with a finite metric"
    assert told[2].splitlines() == ["trial 2: my<attention>&more", "accuracy 0.6", "latency_ms 1.5"]
    assert told[4].splitlines()[1] == "accuracy 0.9 when paused"
    assert drawn.get("aria-label") == "The front, accuracy by latency_ms: 0.5: 0.4000, 0.6: 0.5000, 1.5: 0.6000"


def test_a_point_leads_to_where_its_trial_is_described():
    drawn = ElementTree.fromstring(picture.chart(MEMBERS, ACCURACY, title="mine", links={1: "#trial-1"}))
    (link,) = drawn.iter("{http://www.w3.org/2000/svg}a")
    assert link.get("href") == "#trial-1"
    assert link.findtext(".//{http://www.w3.org/2000/svg}title").startswith("trial 1: longformer+softmax")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with a stored study called tiny."""
    monkeypatch.chdir(tmp_path)
    identity = {"space": TREE, "task": {"_target_": "tiny_task.FirstToken"}, "costs": ["latency_ms"]}
    tiny_study("sqlite:///paretoformer.db", identity=identity).set_user_attr("ceilings", [1.0])
    storage = opened.pop()
    storage.remove_session()
    storage.engine.dispose()
    return tmp_path


BEGINNINGS = {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>"}


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_the_command_writes_the_plot(study, capsys, suffix):
    assert main(["tiny", "--plot", f"front.{suffix}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"The plot was written to front.{suffix}."
    assert (study / f"front.{suffix}").read_bytes().startswith(BEGINNINGS[suffix])


REFUSED = [  # arguments, and the message
    (["tiny", "--plot", "front.pdf"], "front.pdf: the file name must end in .svg or .png or .html"),
    (["tiny", "--plot", "front"], "front: the file name must end in .svg or .png or .html"),
    (["tiny", "--plot", "no/such/front.svg"], "no/such/front.svg can't be written: No such file or directory"),
    (["--plot", "front.svg"], "--plot, --confirm, --beside and the choice of a member need the name"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_plot_that_cannot_be_written_is_refused_in_a_line(study, capsys, monkeypatch, arguments, message):
    before = sorted(study.iterdir())
    monkeypatch.setattr(sys, "argv", ["search.front"])
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(study.iterdir()) == before
