"""What a reviewer sees: MLflow, the page and optuna-dashboard in a browser, for three studies and two window sizes.

Screenshots for people are written to the folder ``screenshots``, which git ignores.
"""

import json
import threading
from contextlib import contextmanager
from itertools import pairwise
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest
from test_agreement import Study
from test_ui import free_port
from test_worker import PausesOnce
from tiny_task import OBJECTIVES, close_opened

from search.costs.remeasure import remeasure
from search.report.__main__ import main as write_page
from search.study.records import State, front
from search.study.storage import load_study
from search.study.store import TrialStore
from search.tracking.client import connect
from search.tracking.saved_view import url_path
from search.ui.server import path_of, serving

pytest.importorskip("playwright", reason="an extra: pip install 'paretoformer[browser]'")
browser = pytest.importorskip("browser")
pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]
STUDIES = ("default", "paused", "continued")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The studies in one database: one as it ran, one with pauses, and one that was continued."""
    folder = tmp_path_factory.mktemp("studies")
    stays = PausesOnce()
    stays.resumes = lambda history, *, last: None
    made = {name: Study(folder, name) for name in STUDIES}
    made["default"].run(5)
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
def clean_visit(chromium, url, size, *, wait_for):
    """A visit in which nothing may fail, and no request may leave this machine."""
    with browser.visit(chromium, url, size, wait_for=wait_for) as visit:
        yield visit
    assert visit.errors == []
    assert visit.foreign == []


def best(study):
    return max(front(study.store.records(), OBJECTIVES), key=lambda member: member.metric)


@pytest.mark.parametrize(("name", "size"), [("default", "laptop"), ("paused", "desktop"), ("continued", "laptop")])
def test_the_parent_run_answers_what_was_searched_and_found_why_and_what_next(chromium, mlflow, studies, name, size):
    study = studies[name]
    path = path_of(study.tracking.uri, "paretoformer", name)
    with clean_visit(chromium, f"{mlflow}/{path}", size, wait_for="Searched:") as visit:
        visit.page.get_by_text(f"#{best(study).number} ").first.wait_for()
        text = visit.visible_text()  # before a click on "Show more"
        visit.shoot(f"mlflow-{name}-{size}")
    assert "Searched: FirstToken, 2 mechanisms; " in text
    assert f"Found: accuracy {best(study).metric:.4f} (test " in text
    assert f"(#{best(study).number}); " in text
    assert " wins from " in text[text.index("Why: ") : text.index("Next: ")]
    assert f"Next: python -m search.front {name} --confirm 5" in text


def test_the_first_page_says_where_to_click_and_leads_to_the_runs(chromium, mlflow, studies):
    with clean_visit(chromium, mlflow, "desktop", wait_for="Click Model training") as visit:
        visit.shoot("mlflow-home")
        visit.page.get_by_text("Model training", exact=True).first.click()
        visit.page.get_by_role("link", name="paretoformer", exact=True).first.click()
        for name in STUDIES:
            visit.page.get_by_role("link", name=name, exact=True).first.wait_for()
        visit.shoot("mlflow-runs")


def test_the_charts_of_the_saved_view_show_every_complete_trial(chromium, mlflow, studies):
    study = studies["continued"]
    runs = study.tracking._runs
    path = url_path(runs.experiment_id, runs.study_id)
    with clean_visit(chromium, f"{mlflow}/{path}", "desktop", wait_for="latency_ms vs. final_accuracy") as visit:
        complete = [record.number for record in study.store.records() if record.state == State.COMPLETE]
        visit.page.get_by_text(f"#{complete[0]} ").first.wait_for()
        text = visit.visible_text()
        visit.shoot("mlflow-charts")
        visit.page.get_by_text("Parallel Coordinates").first.scroll_into_view_if_needed()
        labels = visit.page.locator(".axis-title text, .axis-heading text, .axis text.label, text.label")
        labels.first.wait_for()
        boxes = sorted((labels.nth(at).bounding_box() for at in range(labels.count())), key=lambda box: box["x"])
        visit.shoot("mlflow-parallel")
    assert [number for number in complete if f"#{number} " not in text] == []
    apart = [left["x"] + left["width"] <= right["x"] for left, right in pairwise(boxes)]
    assert len(boxes) >= 3
    assert all(apart), "labels of the parallel coordinates overlap"


def test_runs_are_compared_without_set_up(chromium, mlflow, studies):
    study = studies["default"]
    client = connect(study.tracking.uri)
    of_study = f"tags.`paretoformer.study_id` = '{study.tracking._runs.study_id}' and tags.state = 'complete'"
    runs = client.search_runs([study.tracking._runs.experiment_id], of_study)
    ids = json.dumps([run.info.run_id for run in runs])
    experiments = json.dumps([study.tracking._runs.experiment_id])
    path = f"#/compare-runs?runs={ids}&experiments={experiments}"
    with clean_visit(chromium, f"{mlflow}/{path}", "desktop", wait_for=f"Comparing {len(runs)} Runs") as visit:
        visit.page.get_by_text("Parameters:").first.wait_for()
        visit.page.get_by_text("attention", exact=True).first.wait_for()
        visit.shoot("mlflow-compare")


def test_a_paused_trial_says_why_and_leads_to_a_better_one(chromium, mlflow, studies):
    study = studies["paused"]
    (paused, *_) = (record.number for record in study.store.records() if record.state == State.PAUSED)
    path = study.tracking._runs.addresses()[paused]
    with clean_visit(chromium, f"{mlflow}/{path}", "desktop", wait_for="paused after 1 of 3 epochs") as visit:
        visit.page.get_by_text(f"#{paused} ").first.wait_for()
        visit.shoot("mlflow-paused")


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


def test_optuna_dashboard_shows_the_names_of_the_objectives_and_the_same_front(chromium, studies):
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
        with clean_visit(chromium, address, "desktop", wait_for="Pareto") as visit:
            for name in ("accuracy", "latency_ms"):
                visit.page.get_by_text(name).first.wait_for()
            visit.shoot("optuna-dashboard")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    store = TrialStore(fresh)
    found = [store.record(trial.number) for trial in fresh.best_trials]
    ours = {member.number for member in front(store.records(), OBJECTIVES)}
    assert {record.number if record.duplicate_of is None else record.duplicate_of for record in found} == ours
    fresh._storage._backend.engine.dispose()
