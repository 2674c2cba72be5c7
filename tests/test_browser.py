"""What a reviewer sees: MLflow, the page and optuna-dashboard in a browser, for three studies and two window sizes.

Screenshots for people are written to the folder ``screenshots``, which git ignores.
"""

import json
import re
import threading
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest
from test_agreement import Study
from test_ui import free_port
from test_worker import PausesOnce
from tiny_task import OBJECTIVES, TREE, close_opened

from search.costs.remeasure import remeasure
from search.report.__main__ import main as write_page
from search.study.records import State, Stop, front
from search.study.storage import load_study
from search.study.store import TrialStore
from search.tracking.client import connect
from search.tracking.saved_view import run_path, url_path
from search.ui.server import path_of, serving

pytest.importorskip("playwright", reason="an extra: pip install 'paretoformer[browser]'")
browser = pytest.importorskip("browser")
pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]
STUDIES = ("default", "paused", "continued")
both_sizes = pytest.mark.parametrize("size", ["desktop", "laptop"])
OVERLAPS = """selector => {
  const texts = [...document.querySelectorAll(selector)].filter(each => each.checkVisibility() && each.textContent);
  const boxes = texts.map(each => [each.textContent, each.getBoundingClientRect()]);
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return boxes.flatMap(([one, a], at) => boxes.slice(at + 1).filter(([, b]) => meet(a, b)).map(([two]) => [one, two]));
}"""
SETTINGS = ("clip", "decay", "ema", "label_smoothing", "temperature", "token_dropout", "warmup", "weight_decay")
MANY = {**TREE, "train": {**TREE["train"], **{name: {"float": [0.1, 0.2]} for name in SETTINGS}}}
FAULTY = """<p>Seen</p><p hidden>hidden</p><div style="height: 9px; overflow: hidden"><p>folded</p></div>
<div style="position: relative; height: 40px"><p>faded</p>
<div data-testid="truncation-gradient" style="position: absolute; top: -20px; height: 40px; width: 100%"></div></div>
<svg><text y="20">one</text><text x="5" y="20">two</text><text x="99" y="20">three</text></svg>
<p style="margin-top: 2000px">scrolled away</p>
<script>console.error("reported"); throw new Error("thrown")</script><img src="http://example.com/a.png">"""
NO_DATA_YET = "Expected number"  # of an attribute of a drawing
POINTS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data.filter(trace => trace.y)
  .flatMap(trace => Array.from(trace.x, (x, at) => [x, trace.y[at]])))"""
FIRST_PLOT = """() => {
  const traces = (document.querySelector('.js-plotly-plot')?.data ?? []).map(trace =>
    Array.from(trace.x ?? [], (x, at) => [x, trace.y[at]]));
  return traces.some(points => points.length) ? traces : null;
}"""


class Stays(PausesOnce):
    """Pauses every trial after its first epoch, as trial 0 is better, and resumes none."""

    def decide(self, row, epoch, history):
        return Stop("paused by the test", epoch, beaten_by=(0,)) if epoch == 1 else None

    def resumes(self, history, *, last):
        return None


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The studies in one database: one as it ran, one with pauses, and one that was continued."""
    folder = tmp_path_factory.mktemp("studies")
    stays = Stays()
    made = {name: Study(folder, name) for name in STUDIES}
    made["default"].run(5)
    made["many"] = Study(folder, "many", tree=MANY, dimensions={"model.width", *(f"train.{name}" for name in SETTINGS)})
    made["many"].run(4)
    made["paused"].run(3)
    made["paused"].run(5, pruner=stays)
    made["continued"].run(3)
    made["continued"].run(4, pruner=stays)
    remeasure(made["continued"].store, made["continued"].search().cost_model, OBJECTIVES)
    made["continued"].store.resume(3)
    made["continued"].run(6)
    for study in made.values():
        study.tracking.finish(study.store.records(), "the test is over")
    yield made
    close_opened()


@pytest.fixture(scope="module")
def mlflow(studies):
    """The address of MLflow's server."""
    with serving(studies["default"].tracking.uri, free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as found:
        yield found


@contextmanager
def clean_visit(chromium, url, size, *, wait_for, redrawn=False):
    """A visit in which nothing may fail, and no request may leave this machine.

    With ``redrawn`` a chart may be drawn before its data are there, as MLflow's parallel coordinates are if it is slow.
    """
    with browser.visit(chromium, url, size, wait_for=wait_for) as visit:
        yield visit
    assert [each for each in visit.errors if not (redrawn and NO_DATA_YET in each)] == []
    assert visit.foreign == []


def test_each_fault_of_a_page_is_found(chromium, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(FAULTY)
    with browser.visit(chromium, file.as_uri(), "laptop", wait_for="Seen") as visit:
        assert visit.visible_text() == "Seen one two three"
        assert visit.page.evaluate(OVERLAPS, "text") == [["one", "two"]]
        assert visit.errors == ["reported", "thrown"]
        assert visit.foreign == ["http://example.com/a.png"]


def best(study):
    return max(front(study.store.records(), OBJECTIVES), key=lambda member: member.metric)


def points(visit, count):
    """The points of the plot that has ``count``, once it is drawn."""
    drawn = f"() => ({POINTS})().some(each => each.length == {count})"
    visit.page.wait_for_function(drawn)
    return next(found for found in visit.page.evaluate(POINTS) if len(found) == count)


def of_study(study, condition):
    """The runs of a study in MLflow that fulfil a condition."""
    runs = study.tracking._runs
    condition = f"tags.`paretoformer.study_id` = '{runs.study_id}' and {condition}"
    return connect(study.tracking.uri).search_runs([runs.experiment_id], condition)


@pytest.mark.parametrize(
    ("name", "size"), [("default", "desktop"), ("default", "laptop"), ("paused", "desktop"), ("continued", "laptop")]
)
def test_the_parent_run_answers_what_was_searched_and_found_why_and_what_next(chromium, mlflow, studies, name, size):
    study = studies[name]
    records = study.store.records()
    members = front(records, OBJECTIVES)
    path = path_of(study.tracking.uri, "paretoformer", name)
    with clean_visit(chromium, f"{mlflow}/{path}", size, wait_for="Searched:") as visit:
        visit.page.get_by_text(f"#{best(study).number} ").first.wait_for()
        text = visit.visible_text()  # before a click on "Show more"
        visit.shoot(f"mlflow-{name}-{size}")
    assert "Searched: FirstToken, 2 mechanisms; AMD EPYC 7763, 2 cores." in text
    assert f"Found: accuracy {best(study).metric:.4f} (test " in text
    assert f"(#{best(study).number}). " in text
    assert " wins from " in text[text.index("Why: ") : text.index("Next: ")]
    for command in (
        f"Next: python -m search.export {name} --knee --to model",
        f"search.front {name} --confirm 5 (or --why {members[0].number})",
        f"continue: {study.command}",
    ):
        assert command in text
    assert OBJECTIVES.hypervolume(members) in map(float, re.findall(r"\bhypervolume ([\d.]+)", text))
    assert f" front_size {len(members)} " in text


@both_sizes
def test_the_charts_of_the_parent_run_begin_with_the_front_and_its_hypervolume(chromium, mlflow, studies, size):
    study = studies["paused"]
    path = run_path(study.tracking._runs.experiment_id, study.tracking._runs.parent, "/model-metrics")
    with clean_visit(chromium, f"{mlflow}/{path}", size, wait_for="hypervolume") as visit:
        names = ("front_size", "hypervolume", "trials_complete")
        for name in names:
            visit.page.get_by_text(name, exact=True).first.wait_for()
        text = visit.visible_text()
        visit.shoot(f"mlflow-metrics-{size}")
    assert [name for name in names if name not in text] == []


@both_sizes
def test_the_first_page_says_where_to_click_and_leads_to_the_runs(chromium, mlflow, studies, size):
    with clean_visit(chromium, mlflow, size, wait_for="Click Model training") as visit:
        visit.shoot(f"mlflow-home-{size}")
        visit.page.get_by_text("Model training", exact=True).first.click()
        visit.page.get_by_role("link", name="paretoformer", exact=True).first.click()
        table = visit.page.get_by_role("gridcell")  # not the links above it
        for name in STUDIES:
            table.get_by_role("link", name=name, exact=True).first.wait_for()
        visit.shoot(f"mlflow-runs-{size}")


@pytest.mark.parametrize(("name", "size"), [("continued", "desktop"), ("continued", "laptop"), ("many", "desktop")])
def test_the_charts_of_the_saved_view_show_every_complete_trial(chromium, mlflow, studies, name, size):
    study = studies[name]
    runs = study.tracking._runs
    path = url_path(runs.experiment_id, runs.study_id)
    complete = [record for record in study.store.records() if record.state == State.COMPLETE]
    shown_first = "latency_ms vs. final_accuracy"
    with clean_visit(chromium, f"{mlflow}/{path}", size, wait_for=shown_first, redrawn=True) as visit:
        visit.page.get_by_text(f"#{complete[0].number} ").first.wait_for()
        shown = points(visit, len(complete))
        text = visit.visible_text()
        visit.shoot(f"mlflow-charts-{name}-{size}")
        overlapping = visit.page.evaluate(OVERLAPS, ".xtick text, .ytick text")
        if size == "desktop":  # in a lower window MLflow does not draw the other chart yet
            visit.page.get_by_text("Parallel Coordinates").first.scroll_into_view_if_needed()
            labels = visit.page.locator("text.label")
            labels.first.wait_for()
            visit.page.wait_for_function("() => !document.querySelector('[transform*=NaN]')")  # it is drawn with data
            assert labels.count() >= 3
            overlapping += visit.page.evaluate(OVERLAPS, "text.label")
            visit.shoot(f"mlflow-parallel-{name}")
    assert [each.number for each in complete if f"#{each.number} " not in text] == []
    assert sorted(shown) == sorted([each.costs["latency_ms"], each.metric] for each in complete)
    assert overlapping == []


@both_sizes
def test_runs_are_compared_without_set_up(chromium, mlflow, studies, size):
    study = studies["default"]
    runs = of_study(study, "tags.state = 'complete'")
    ids = json.dumps([run.info.run_id for run in runs])
    experiments = json.dumps([study.tracking._runs.experiment_id])
    path = f"#/compare-runs?runs={ids}&experiments={experiments}"
    with clean_visit(chromium, f"{mlflow}/{path}", size, wait_for=f"Comparing {len(runs)} Runs") as visit:
        visit.page.get_by_text("Parameters:").first.wait_for()
        visit.page.get_by_text("attention", exact=True).first.wait_for()
        visit.shoot(f"mlflow-compare-{size}")
        overlapping = visit.page.evaluate(OVERLAPS, ".axis-title")
        visit.page.get_by_text("Scatter Plot").first.click()
        shown = points(visit, len(runs))
        visit.shoot(f"mlflow-scatter-{size}")
        overlapping += visit.page.evaluate(OVERLAPS, ".xtick text, .ytick text")
        visit.page.get_by_text("Box Plot").first.click()
        visit.page.get_by_text("Select parameters/metrics to plot").wait_for()  # MLflow chooses none here
        visit.shoot(f"mlflow-box-{size}")
        visit.page.get_by_text("Contour Plot").first.click()
        contour = points(visit, 2 * len(runs))  # the surface and the runs
        visit.shoot(f"mlflow-contour-{size}")
        overlapping += visit.page.evaluate(OVERLAPS, ".xtick text, .ytick text")
    expected = [[run.data.params["attention"], run.data.metrics["accuracy"]] for run in runs]
    assert sorted(shown) == sorted(expected)
    by_width = [[float(run.data.params["width"]), run.data.metrics["accuracy"]] for run in runs]
    assert sorted(contour) == sorted(2 * by_width)
    assert overlapping == []


@both_sizes
def test_a_paused_trial_says_why_and_leads_to_a_better_one(chromium, mlflow, studies, size):
    study = studies["paused"]
    (paused, *_) = (record.number for record in study.store.records() if record.state == State.PAUSED)
    path = study.tracking._runs.addresses()[paused]
    with clean_visit(chromium, f"{mlflow}/{path}", size, wait_for="paused after 1 of 3 epochs") as visit:
        visit.page.get_by_text(f"#{paused} ").first.wait_for()
        text = visit.visible_text()
        visit.shoot(f"mlflow-paused-{size}")
        with visit.page.expect_popup() as opened:
            visit.page.get_by_role("link", name="#0", exact=True).click()
        opened.value.get_by_text(f"complete: accuracy {study.store.record(0).metric:.4f}").first.wait_for()
    assert "paused after 1 of 3 epochs; 0 does better" in text


@pytest.mark.parametrize(("name", "size"), [("default", "phone"), ("paused", "desktop"), ("continued", "laptop")])
def test_the_page_shows_the_front_and_fits_the_window(chromium, studies, name, size, tmp_path):
    study = studies[name]
    file = tmp_path / "page.html"
    assert write_page([name, "--storage", study.url, "--to", str(file)]) == 0
    with clean_visit(chromium, file.as_uri(), size, wait_for="What was searched") as visit:
        text = visit.visible_text()
        visit.shoot(f"page-{name}-{size}")
        width = visit.page.evaluate("document.documentElement.scrollWidth")
    assert f"The best accuracy is {best(study).metric:.4f}" in text
    assert width <= (browser.SIZES | browser.PHONE)[size][0], "it is scrolled sideways"


@both_sizes
def test_optuna_dashboard_shows_the_names_of_the_objectives_and_the_same_front(chromium, studies, size):
    dashboard = pytest.importorskip("optuna_dashboard")
    study = studies["continued"]
    close_opened()
    fresh = load_study(optuna.storages.RDBStorage(study.url), "continued")  # as in a process of its own
    app = dashboard.wsgi(fresh._storage)
    handler = type("Quiet", (WSGIRequestHandler,), {"log_message": lambda *_: None})
    server = make_server("127.0.0.1", free_port(), app, handler_class=handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/dashboard/studies/{fresh._study_id}"
        with clean_visit(chromium, address, size, wait_for="Pareto") as visit:
            for name in ("accuracy", "latency_ms"):
                visit.page.get_by_text(name).first.wait_for()
            shown = visit.page.wait_for_function(FIRST_PLOT).json_value()
            visit.shoot(f"optuna-dashboard-{size}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    store = TrialStore(fresh)
    found = [store.record(trial.number) for trial in fresh.best_trials]
    members = front(store.records(), OBJECTIVES)
    assert {record.number if record.duplicate_of is None else record.duplicate_of for record in found} == {
        member.number for member in members
    }
    drawn = [{tuple(point) for point in points} for points in shown]
    assert {(each.metric, each.costs["latency_ms"]) for each in members} in drawn, "in a colour of its own"
    fresh._storage._backend.engine.dispose()
