import json
import logging
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from search.report import plots as pictures
from search.study.records import Objectives, Record, Stop, Timing
from search.tracking import Tracking, client, runs, summaries
from search.tracking import mlflow as tracking_by_mlflow
from search.tracking.mlflow import MlflowTracking

OBJECTIVES = Objectives("accuracy", "maximize", ("latency_ms",), chance=0.1, best=1.0, ceilings=(10.0,))
SECRET = "hunter2"


def record(number, accuracy=0.5, latency_ms=1.0, state="complete", name="linformer", **changes):
    architecture = {
        "model": {"_target_": "spaces.models.encoder.Encoder", "depth": 2, "width": 32 * (number + 1)},
        "pattern": [name, name],
        "attention": {name: {"_target_": f"spaces.attention.{name}.X", "rank": 16}},
        "train": {"lr": 0.001},
    }
    made = Record(
        number,
        state,
        costs={"latency_ms": latency_ms, "parameters": 1000},
        curve=[(1, accuracy / 2), (2, accuracy)],
        metric=accuracy if state == "complete" else None,
        architecture=architecture,
        training_s=4.0,
        latency_s=1.0,
        worker="host:1",
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all tests, as MLflow takes seconds to make one; each has an experiment of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


class Place:
    """Where a test tracks, and what it finds there."""

    def __init__(self, uri, experiment):
        self.uri, self.experiment, self.client = uri, experiment, client.connect(uri)

    def tracker(self, *, uri=None, study="nlp", identity="id-1", config="study: nlp\n"):
        made = MlflowTracking(uri=uri or self.uri, experiment=self.experiment)
        made.start(study, identity=identity, objectives=OBJECTIVES, config=config)
        return made

    def runs(self):
        """All of them, those of all studies."""
        return self.client.search_runs([self.client.get_experiment_by_name(self.experiment).experiment_id])

    def parents(self):
        return [run for run in self.runs() if "trial" not in run.data.tags]

    def parent(self):
        (only,) = self.parents()
        return only

    def children(self):
        """By trial."""
        found = [run for run in self.runs() if "trial" in run.data.tags]
        assert len({run.data.tags["trial"] for run in found}) == len(found), "a trial is there twice"
        return {int(run.data.tags["trial"]): run for run in found}

    def on_front(self):
        return {number for number, run in self.children().items() if run.data.tags["front"] == "true"}

    def history(self, run, name):
        points = self.client.get_metric_history(run.info.run_id, name)
        return sorted((point.step, point.value, point.timestamp - run.info.start_time) for point in points)

    def everything(self):
        """All that is stored of all runs, in a form that compares."""
        return {
            run.info.run_id: (
                run.info.status,
                run.data.tags,
                run.data.params,
                {name: self.history(run, name) for name in run.data.metrics},
            )
            for run in self.runs()
        }

    def artifact(self, name):
        file = self.client.download_artifacts(self.parent().info.run_id, name)
        return Path(file).read_text(encoding="utf-8")


@pytest.fixture
def place(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "html", lambda *_, **__: "a plot")
    return Place(uri, tmp_path.name)


def test_a_trial_is_stored_as_it_was_recorded(place):
    trial = record(3, accuracy=0.8, latency_ms=2.5)
    place.tracker().log(3, [trial])
    parent, children = place.parent(), place.children()
    run = children[3]
    assert run.info.run_name == "0003 linformer"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    expected = {"state": "complete", "mechanism": "linformer", "front": "true", "worker": "host:1", "trial": "3"}
    assert expected.items() <= run.data.tags.items()
    assert run.data.params == {
        "pattern": "linformer",
        "model.depth": "2",
        "model.width": "128",
        "attention.linformer.rank": "16",
        "train.lr": "0.001",
    }
    assert run.data.metrics == {
        "accuracy": 0.8,
        "final_accuracy": 0.8,
        "latency_ms": 2.5,
        "parameters": 1000,
        "training_s": 4,
        "latency_s": 1,
    }
    assert place.history(run, "accuracy") == [(1, 0.4, 2500), (2, 0.8, 5000)], "in milliseconds since it began"
    assert run.info.end_time - run.info.start_time == 5000


def test_a_stopped_trial_tells_where_it_was_stopped_and_by_whom(place):
    stopped = record(5, state="pruned", stop=Stop("why", 2, threshold=0.6, beaten_by=(4, 1)))
    skipped = record(6, state="pruned", curve=[], stop=Stop("too dear", 0))
    place.tracker().finish([stopped, skipped])
    run, other = place.children()[5], place.children()[6]
    assert {"reason": "why", "rung": "2", "beaten_by": "4, 1"}.items() <= run.data.tags.items()
    assert place.history(run, "threshold_accuracy") == [(2, 0.6, 5000)], "beside the curve, at its rung"
    assert other.data.tags["rung"] == "0"
    assert "beaten_by" not in other.data.tags
    assert "threshold_accuracy" not in other.data.metrics


@pytest.mark.parametrize(("state", "status"), [("complete", "FINISHED"), ("pruned", "FINISHED"), ("failed", "FAILED")])
def test_only_a_failure_is_red(place, state, status):
    place.tracker().log(0, [record(0, state=state, error="why")])
    run = place.children()[0]
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == (status, state, "why")
    assert ("final_accuracy" in run.data.metrics) == (state == "complete")


def test_the_front_is_taken_back_from_a_dominated_trial(place):
    tracking, trials = place.tracker(), [record(0, 0.6, 2.0), record(1, 0.5, 1.0)]
    tracking.log(0, trials[:1])
    tracking.log(1, trials)
    assert place.on_front() == {0, 1}
    trials.append(record(2, 0.7, 1.5))
    tracking.log(2, trials)
    assert place.on_front() == {1, 2}


def test_a_running_trial_is_not_written(place):
    tracking = place.tracker()
    tracking.log(0, [record(0, state="running"), record(1)])
    assert set(place.children()) == set(), "nor another worker's"
    tracking.log(0, [record(0), record(1)])
    assert set(place.children()) == {0}


def test_telling_it_twice_changes_nothing(place):
    tracking, trials = place.tracker(), [record(0, 0.6, 2.0), record(1, state="pruned"), record(2, 0.5, 1.0)]
    for number in range(3):
        tracking.log(number, trials[: number + 1])
    tracking.finish(trials)
    before = place.everything()
    tracking.log(2, trials)
    tracking.finish(trials)
    place.tracker().finish(trials)
    assert place.everything() == before


def test_the_parent_shows_the_front_after_a_resumed_trial_and_after_latencies_are_measured_again(place):
    tracking, trials = place.tracker(), [record(0, 0.6, 2.0), record(1, 0.5, 1.0), record(2, 0.7, 3.0)]
    tracking.log(2, [*trials[:2], record(2, state="paused")])
    assert "width=96" not in place.parent().data.tags["mlflow.note.content"]
    tracking.log(2, trials)
    assert "width=96" in place.parent().data.tags["mlflow.note.content"]
    again = Timing(0.9, 0.01, "here", 1.0)
    faster = replace(trials[2], costs={**trials[2].costs, "latency_ms": 0.9}, timings=(again, again))
    tracking.finish([*trials[:2], faster])
    parent = place.parent()
    assert "width=64" not in parent.data.tags["mlflow.note.content"], "dominated now"
    assert parent.data.metrics["hypervolume"] == pytest.approx(OBJECTIVES.hypervolume([*trials[:2], faster]))
    assert place.children()[2].data.metrics["latency_ms"] == 0.9


def test_a_trial_costs_four_calls_and_no_reads(place, monkeypatch):
    tracking, trials = place.tracker(), [record(number, 0.5 - 0.1 * number, 1.0 + number) for number in range(3)]
    tracking.log(0, trials[:1])
    calls = []
    kind = type(tracking._runs._client)
    for name in ("create_run", "log_batch", "set_terminated", "search_runs", "get_run", "log_text", "set_tag"):
        original = getattr(kind, name)
        monkeypatch.setattr(
            kind,
            name,
            lambda *args, _name=name, _original=original, **more: (calls.append(_name), _original(*args, **more))[1],
        )
    tracking.log(1, trials[:2])
    assert calls == ["create_run", "log_batch", "set_terminated", "log_batch"]


def test_workers_share_a_parent_and_mark_each_others_trials(place):
    one, two = place.tracker(), place.tracker()
    one.log(0, [record(0, 0.5, 1.0)])
    trials = [record(0, 0.5, 1.0), record(1, 0.6, 0.9)]
    two.log(1, trials)
    parent, children = place.parent(), place.children()
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert place.on_front() == {1}
    trials.append(record(2, 0.9, 0.8))
    one.log(2, trials)
    two.log(3, [*trials, record(3, state="failed")])
    assert place.on_front() == {2}, "at the latest when the worker of a dominated trial ends its next one"


def test_parents_made_at_the_same_moment_become_the_oldest(place, monkeypatch):
    first = place.tracker()
    first.log(0, [record(0)])
    oldest = place.parent().info.run_id
    with monkeypatch.context() as patch:
        patch.setattr(runs.Runs, "_read", lambda self: [])  # none has seen the others' yet
        late = [place.tracker() for _ in range(2)]
    assert len(place.parents()) == 3
    trials = [record(number) for number in range(3)]
    for number, worker in enumerate(reversed(late), start=1):
        worker.log(number, trials)
    assert place.parent().info.run_id == oldest
    assert {run.data.tags["mlflow.parentRunId"] for run in place.children().values()} == {oldest}
    assert set(place.children()) == {0, 1, 2}


def test_another_study_of_the_same_name_has_its_own_page(place):
    for identity in ("id-1", "id-2"):
        place.tracker(identity=identity).finish([record(0)])
    assert sorted("trial" in run.data.tags for run in place.runs()) == [False, False, True, True]


def test_finish_adds_what_dead_workers_left_out(place):
    tracking, trials = place.tracker(), [record(0), record(1, state="failed"), record(2, state="running")]
    half = tracking._runs
    half._client.create_run(half.experiment_id, tags={"trial": "0", **half._mark()})  # died after this
    tracking.finish(trials)
    parent, children = place.parent(), place.children()
    assert set(children) == {0, 1}
    assert children[0].info.status == "FINISHED"
    assert children[0].data.metrics["final_accuracy"] == 0.5
    assert children[0].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FINISHED"


def test_finish_keeps_the_oldest_of_two_runs_of_a_trial(place):
    tracking = place.tracker()
    tracking.log(0, [record(0)])
    first = place.children()[0].info.run_id
    late = place.tracker()
    late._runs._children.clear()
    late._runs.write(0, summaries.of_trial(record(0), OBJECTIVES), seconds=0.0, front=True)
    late.finish([record(0)])
    assert place.children()[0].info.run_id == first


@pytest.mark.parametrize("broken", ["create_run", "log_batch", "set_terminated", "search_runs", "log_text"])
def test_an_outage_costs_no_trial_and_is_made_good(place, monkeypatch, caplog, broken):
    tracking, trials = place.tracker(), [record(number, 0.5 + number / 10, 1.0 + number) for number in range(4)]
    tracking.log(0, trials[:1])
    monkeypatch.setattr(tracking_by_mlflow, "_tenfold", lambda began: 0.0)
    with monkeypatch.context() as patch:
        kind = type(tracking._runs._client)
        patch.setattr(
            kind, broken, lambda *_, **__: (_ for _ in ()).throw(OSError(f"no route to http://me:{SECRET}@host/"))
        )
        tracking.log(1, trials[:2])
        tracking.finish(trials[:2])
    assert SECRET not in caplog.text
    assert len([entry for entry in caplog.records if "trials go on" in entry.message]) == 1
    tracking.log(2, trials[:3])
    assert {1, 2} <= set(place.children())
    tracking.finish(trials)
    assert all(run.info.status == "FINISHED" for run in place.children().values())
    values = [values["accuracy"] for _, _, _, values in place.everything().values() if "accuracy" in values]
    assert all(len(steps) == 2 for steps in values), "a batch that is sent again leaves no second trace"
    place.tracker().finish(trials)
    assert len(place.everything()) == 5


@pytest.mark.parametrize("lost", ["create_run", "log_batch", "set_terminated"])
def test_what_was_written_though_its_answer_was_lost_is_not_written_again(place, monkeypatch, lost):
    tracking, trials = place.tracker(), [record(0, 0.5, 1.0), record(1, 0.6, 2.0)]
    tracking.log(0, trials[:1])
    monkeypatch.setattr(tracking_by_mlflow, "_tenfold", lambda began: 0.0)
    with monkeypatch.context() as patch:
        original = getattr(type(place.client), lost)

        def lose(*args, **more):
            original(*args, **more)
            raise OSError("timed out")

        patch.setattr(type(place.client), lost, lose)
        tracking.log(1, trials)
    tracking.log(1, trials)
    assert set(place.children()) == {0, 1}
    assert place.history(place.children()[1], "accuracy") == [(1, 0.3, 2500), (2, 0.6, 5000)]


def test_a_failing_server_is_left_alone_for_ten_times_as_long(place, monkeypatch):
    seconds, tries = [100.0], []

    def fail(_):
        tries.append(seconds[0])
        seconds[0] += 3.0
        raise OSError("down")

    monkeypatch.setattr(tracking_by_mlflow.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(client, "connect", fail)
    tracking = place.tracker()
    for at in (104, 132.9, 133.1, 160):
        seconds[0] = at
        tracking.log(0, [record(0)])
    assert tries == [100.0, 133.1]


def test_of_two_workers_that_make_the_database_at_once_one_does(tmp_path):
    file = tmp_path / "mlflow.db"

    def fill(name, meanwhile=lambda: None):
        def write(new):
            assert not file.exists()
            with closing(sqlite3.connect(new)) as database:
                meanwhile()
                database.execute(f"CREATE TABLE {name} (x)")
                database.commit()

        return write

    client.make_database(file, fill("slow", meanwhile=lambda: client.make_database(file, fill("fast"))))
    client.make_database(file, fill("late"))
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("fast",)]
        assert database.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_server_that_is_down_from_the_start_only_warns(place, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking = place.tracker(uri=f"http://me:{SECRET}@127.0.0.1:9/")
    tracking.log(0, [record(0)])
    tracking.finish([record(0)])
    assert tracking.page() == ""
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING] * 2
    assert SECRET not in caplog.text


def test_hypervolume_only_grows(place):
    tracking, trials = place.tracker(), []
    for number, accuracy in enumerate([0.3, 0.9, 0.2, 0.8, 0.95, 0.5]):
        trials.append(record(number, accuracy, 1 + 5 * accuracy**2, state="pruned" if number == 3 else "complete"))
        tracking.log(number, trials)
    tracking.finish(trials)
    parent = place.parent()
    steps, values, _ = zip(*place.history(parent, "hypervolume"), strict=True)
    assert steps == (1, 2, 3, 4, 5, 6)
    assert list(values) == sorted(values)
    assert len(set(values)) > 3
    assert 0 < values[0] < values[-1] < 1
    expected = {"complete": 5, "pruned": 1, "failed": 0, "front_size": 5}
    assert expected.items() <= parent.data.metrics.items()


def test_the_plot_opens_without_a_network(uri, tmp_path):
    trials = [record(0, 0.5, 1.0), record(1, 0.9, 3.0, name="a<b>"), record(2, state="pruned"), record(3, 0.4, 2.0)]
    place = Place(uri, tmp_path.name)
    place.tracker(study="a study").finish(trials)
    page = place.artifact("front.html")
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=", page)
    assert "Plotly.newPlot" in page
    assert len(page) > 4_000_000, "plotly itself is in it"
    for text in ("a study", "stopped (1)", "dominated (1)", "linformer (1)", "when pruned", "width 64"):
        assert text in page
    assert "a<b>" not in page


@pytest.mark.parametrize(
    ("direction", "costs", "front", "line"),
    [
        ("maximize", ("latency_ms",), {0, 2}, [(1.0, 0.5), (2.0, 0.9), (4.0, 0.9)]),
        ("minimize", ("latency_ms",), {0, 1}, [(1.0, 0.5), (3.0, 0.4), (4.0, 0.4)]),
        ("maximize", ("latency_ms", "memory_mb"), {0, 1, 2}, None),  # a line would not pass through all of them
    ],
)
def test_the_plot_shows_each_trial_once_and_the_front_as_steps(direction, costs, front, line):
    objectives = Objectives("accuracy", direction, costs, chance=0.1, best=1.0, ceilings=(9.0,) * len(costs))
    points = [(0.5, 1.0, 3.0), (0.4, 3.0, 1.0), (0.9, 2.0, 2.0), (0.45, 4.0, 4.0)]
    trials = [
        record(number, accuracy, name="linear" if number else "softmax", costs={"latency_ms": ms, "memory_mb": mb})
        for number, (accuracy, ms, mb) in enumerate(points)
    ]
    trials += [record(4, state="pruned"), record(5, state="failed", curve=[]), record(6, state="running", curve=[])]
    traces = pictures.plot(trials, objectives, title="x").data
    shown = {
        trace.name: [int(re.findall(r"\d+", text)[0]) for text in trace.hovertext] for trace in traces if trace.name
    }
    on_front = {number for name, group in shown.items() if name.split()[0] in ("linear", "softmax") for number in group}
    assert on_front == front
    assert sorted(number for group in shown.values() for number in group) == [0, 1, 2, 3, 4]
    lines = [list(zip(trace.x, trace.y, strict=True)) for trace in traces if trace.mode == "lines"]
    assert lines == ([line] if line else [])


def test_the_front_is_a_table_twice(place):
    trials = [record(0, 0.5, 1.0), record(1, 0.9, 3.0), record(2, state="pruned"), record(3, 0.4, 2.0)]
    place.tracker().finish(trials)
    table = json.loads(place.artifact("front.json"))
    assert table["columns"] == ["trial", "accuracy", "latency_ms", "parameters", "architecture"]
    assert [row[:3] for row in table["data"]] == [[0, 0.5, 1.0], [1, 0.9, 3.0]]
    tags = place.parent().data.tags
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "front.json", "type": "table"}]
    assert "| 1 | 0.9 | 3 | 1000 | linformer depth=2 width=64" in tags["mlflow.note.content"]


def test_names_that_mlflow_refuses_are_written_nonetheless(place, caplog):
    place.tracker().finish([record(0, name="a<b>")])
    assert place.children()[0].data.params["attention.a_b_.rank"] == "16"
    assert not caplog.records


def test_a_study_without_any_result_finishes_too(place, caplog):
    place.tracker().finish([])
    place.tracker(identity="id-2").finish(
        [record(0, state="failed", costs={}, curve=[], architecture={}, training_s=0.0, latency_s=0.0)]
    )
    assert not caplog.records


def test_no_password_is_ever_written(place):
    address = f"postgresql+psycopg://me:{SECRET}@host/db"
    tracking = place.tracker(identity=address, config=f"tracking: {{uri: '{address}'}}\n")
    tracking.log(0, [record(0, state="failed", error=f"cannot reach {address}")])
    tracking.finish([record(0)])
    folder = Path(place.uri.removeprefix("sqlite:///")).parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any("config" in path.parts for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        (None, "mlflow ui"),
        ("sqlite:///mlflow.db", "mlflow ui"),
        ("sqlite:////data/my runs.db", "mlflow ui --backend-store-uri 'sqlite:////data/my runs.db'"),
        (f"postgresql://me:{SECRET}@host/db", "mlflow ui --backend-store-uri 'postgresql://me:***@host/db'"),
        (f"https://me:{SECRET}@host", ""),
    ],
)
def test_the_command_opens_what_was_written(uri, command, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert MlflowTracking(uri=uri).command() == command


def test_a_worker_with_the_password_in_the_address_joins_one_without(place):
    for identity in (f"postgresql://me:{SECRET}@host/db", "postgresql://me:***@host/db"):
        place.tracker(identity=identity)
    assert len(place.parents()) == 1


def test_the_saved_view_shows_this_study_and_can_be_read_back(place):
    import base64
    import zlib

    tracking = place.tracker()
    tracking.finish([record(0, 0.4), record(1, 0.5, 2.0), record(2, state="pruned")])
    experiment = place.client.get_experiment_by_name(place.experiment)
    study_id = tracking._runs.study_id
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{study_id}"])
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    assert study_id in tracking.page()
    best_first = [f"{state['orderByKey']} DESC"]
    found = place.client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=best_first)
    assert [run.data.tags["trial"] for run in found] == ["1", "0"]
    assert state["compareRunCharts"][-1]["selectedParams"] == ["model.width"], "what varies, and no more"


def test_long_values_and_curves_fit_the_limits_of_mlflow(place):
    curve = [(epoch, 0.5) for epoch in range(1, 2001)]
    knobs = {f"knob{number}": "x" * 9000 for number in range(150)}
    trial = record(0, curve=curve, architecture={"model": knobs, "pattern": ["linear"]}, error="y" * 9000)
    place.tracker().log(0, [trial])
    run = place.children()[0]
    assert len(run.data.params) == 151
    assert len(place.history(run, "accuracy")) == 2000


def test_a_note_that_would_be_too_long_says_what_it_leaves_out():
    rows = [{"trial": number, "architecture": "x" * 100} for number in range(100)]
    text = pictures.markdown(rows, limit=2000)
    assert len(text) <= 2000
    shown = text.count("x" * 100)
    assert f"and {100 - shown} more" in text


def test_a_tracker_that_keeps_nothing_has_nothing_to_show():
    tracking = Tracking()
    tracking.start("nlp", identity="id", objectives=OBJECTIVES, config="")
    tracking.log(0, [record(0)])
    tracking.finish([record(0)])
    assert (tracking.command(), tracking.page()) == ("", "")
