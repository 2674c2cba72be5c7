import json
import logging
import os
import platform
import sqlite3
import subprocess
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy

from search.report import picture
from search.report.answers import Description
from search.report.rows import markdown
from search.study.records import Objectives, Record, Stop, Timing
from search.tracking import Tracking, client, runs, summaries
from search.tracking import mlflow as tracking_by_mlflow
from search.tracking.mlflow import MlflowTracking
from spaces.baselines import BaselineResult

OBJECTIVES = Objectives("accuracy", "maximize", ("latency_ms",), chance=0.1, best=1.0, ceilings=(10.0,))
SECRET = "hunter2"


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


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
    """One database for all tests, as MLflow takes seconds to create one; each test has its own experiment."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


class Server:
    """An experiment of the database, with a client that reads it."""

    def __init__(self, uri, experiment):
        self.uri, self.experiment, self.client = uri, experiment, client.connect(uri)

    def tracker(self, *, uri=None, study="nlp", identity="id-1", config="study: nlp\n"):
        made = MlflowTracking(uri=uri or self.uri, experiment=self.experiment)
        made.start(study, identity=identity, objectives=OBJECTIVES, config=config)
        return made

    def runs(self):
        """The runs of all studies."""
        return self.client.search_runs([self.client.get_experiment_by_name(self.experiment).experiment_id])

    def parents(self):
        return [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]

    def baselines(self):
        return [run for run in self.runs() if run.data.tags.get("state") == "baseline"]

    def parent(self):
        (only,) = self.parents()
        return only

    def children(self):
        """The runs of trials, by number."""
        found = [run for run in self.runs() if "trial" in run.data.tags]
        assert len({run.data.tags["trial"] for run in found}) == len(found), "a trial has two runs"
        return {int(run.data.tags["trial"]): run for run in found}

    def on_front(self):
        return {number for number, run in self.children().items() if run.data.tags["front"] == "true"}

    def history(self, run, name):
        points = self.client.get_metric_history(run.info.run_id, name)
        return sorted((point.step, point.value, point.timestamp - run.info.start_time) for point in points)

    def all_runs(self):
        """Status, tags, parameters and metric histories of all runs, by run id."""
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
def server(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "html", lambda *_, **__: "a plot")
    return Server(uri, tmp_path.name)


def test_the_run_of_a_trial_has_its_tags_params_and_metrics(server):
    trial = record(3, accuracy=0.8, latency_ms=2.5)
    server.tracker().log(3, [trial])
    parent, children = server.parent(), server.children()
    run = children[3]
    assert run.info.run_name == "#3 linformer 2x128 rank=16"
    assert run.data.tags["mlflow.note.content"] == "complete: accuracy 0.8000 at latency_ms 2.5"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    expected = {"state": "complete", "mechanism": "linformer", "front": "true", "worker": "host:1", "trial": "3"}
    assert expected.items() <= run.data.tags.items()
    assert run.data.tags["epochs"] == "2"
    assert run.data.params == {
        "attention": "linformer",
        "depth": "2",
        "width": "128",
        "setting.linformer.rank": "16",
        "lr": "0.001",
    }
    assert run.data.metrics == {
        "accuracy": 0.8,
        "final_accuracy": 0.8,
        "latency_ms": 2.5,
        "parameters": 1000,
        "training_s": 4,
        "latency_s": 1,
    }
    assert server.history(run, "accuracy") == [(1, 0.4, 2500), (2, 0.8, 5000)], "milliseconds since its start"
    assert run.info.end_time - run.info.start_time == 5000


def test_the_first_parameter_in_the_alphabet_is_one_that_all_trials_have():
    """MLflow's views for comparing runs begin with it; constants are left out."""
    trials = [record(0, name="adaptive_span"), record(1, name="softmax")]
    dimensions = {"model.width", "train.lr", "attention.adaptive_span.rank", "attention.softmax.rank"}
    logged = [summaries.parameters(trial.architecture, dimensions) for trial in trials]
    assert [set(params) & {"depth"} for params in logged] == [set(), set()]
    assert min(set().union(*logged)) in set.intersection(*map(set, logged))
    assert logged[0] == {"attention": "adaptive_span", "width": 32, "setting.adaptive_span.rank": 16, "lr": 0.001}
    same = {"model": {"size": 1}, "train": {"size": 2}, "pattern": ["softmax"]}
    assert summaries.parameters(same, None) == {"attention": "softmax", "model.size": 1, "train.size": 2}


def test_the_run_of_a_stopped_trial_links_to_those_that_are_better(server):
    trials = [record(0, 0.6), record(1, 0.7), record(2, 0.4, state="paused", stop=Stop("low gain", 2, None, (1, 0, 9)))]
    trials.append(record(3, 0.5, 2.0))
    server.tracker().finish(trials)
    children = server.children()
    address, query = f"#/experiments/{children[0].info.experiment_id}/runs/", "?workflowType=machine_learning"
    words, reason, links = children[2].data.tags["mlflow.note.content"].split("\n\n")
    assert words == "paused after 2 of None epochs; 1, 0 and 9 do better at no higher latency"
    assert reason == "Reason: low gain"
    dominated = children[3].data.tags["mlflow.note.content"].split("\n\n")[1]
    assert dominated == f"Better: [#1]({address}{children[1].info.run_id}{query})", "the member of the front"
    assert links == "Better: " + " ".join(f"[#{at}]({address}{children[at].info.run_id}{query})" for at in (1, 0))


def test_the_parent_run_has_the_data_as_inputs_and_the_experiment_says_where_to_click(server):
    description = Description(
        "nlp",
        [("task", "Table"), ("mechanisms", "softmax")],
        {"model.depth"},
        data={"fingerprint": "f" * 64, "examples": {"train": 20, "validation": 3, "test": 3}},
        task={"_target_": "spaces.tasks.table.Table", "url": f"postgresql://me:{SECRET}@host/db"},
    )
    for _ in range(2):
        tracking = MlflowTracking(uri=server.uri, experiment=server.experiment)
        tracking.start("nlp", identity="id-1", objectives=OBJECTIVES, config="", description=description)
        tracking.finish([record(0)])
    inputs = server.parent().inputs.dataset_inputs
    assert {(each.dataset.name, each.dataset.digest) for each in inputs} == {
        (f"Table {split}", "f" * 36) for split in ("train", "validation", "test")
    }
    assert sorted(each.tags[0].value for each in inputs) == ["test", "train", "validation"]
    assert "Table" in inputs[0].dataset.source
    assert SECRET not in inputs[0].dataset.source
    experiment = server.client.get_experiment_by_name(server.experiment)
    address = f"#/experiments/{experiment.experiment_id}/runs/{server.parent().info.run_id}"
    assert f"[nlp]({address}?workflowType=machine_learning)" in experiment.tags["mlflow.note.content"]


def test_the_run_of_a_stopped_trial_has_its_rung_threshold_and_better_trials(server):
    stopped = record(5, state="pruned", stop=Stop("why", 2, threshold=0.6, beaten_by=(4, 1)))
    skipped = record(6, state="pruned", curve=[], stop=Stop("over the limit", 0))
    server.tracker().finish([stopped, skipped])
    run, other = server.children()[5], server.children()[6]
    assert {"reason": "why", "rung": "2", "beaten_by": "4, 1"}.items() <= run.data.tags.items()
    assert server.history(run, "threshold_accuracy") == [(2, 0.6, 5000)], "at the step of its rung"
    assert other.data.tags["rung"] == "0"
    assert "beaten_by" not in other.data.tags
    assert "threshold_accuracy" not in other.data.metrics


@pytest.mark.parametrize(("state", "status"), [("complete", "FINISHED"), ("pruned", "FINISHED"), ("failed", "FAILED")])
def test_only_failed_trials_have_status_failed(server, state, status):
    server.tracker().log(0, [record(0, state=state, error="why")])
    run = server.children()[0]
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == (status, state, "why")
    assert ("final_accuracy" in run.data.metrics) == (state == "complete")


def test_the_front_tag_of_a_dominated_trial_is_set_to_false(server):
    tracking, trials = server.tracker(), [record(0, 0.6, 2.0), record(1, 0.5, 1.0)]
    tracking.log(0, trials[:1])
    tracking.log(1, trials)
    assert server.on_front() == {0, 1}
    trials.append(record(2, 0.7, 1.5))
    tracking.log(2, trials)
    assert server.on_front() == {1, 2}


def test_running_trials_and_those_of_other_workers_are_not_logged(server):
    tracking = server.tracker()
    tracking.log(0, [record(0, state="running"), record(1)])
    assert set(server.children()) == set()
    tracking.log(0, [record(0), record(1)])
    assert set(server.children()) == {0}


def test_logging_the_same_trials_twice_changes_nothing(server):
    tracking, trials = server.tracker(), [record(0, 0.6, 2.0), record(1, state="pruned"), record(2, 0.5, 1.0)]
    for number in range(3):
        tracking.log(number, trials[: number + 1])
    tracking.finish(trials)
    before = server.all_runs()
    tracking.log(2, trials)
    tracking.finish(trials)
    ended = server.parent().info.end_time
    server.tracker().finish(trials)
    assert server.all_runs() == before
    assert server.parent().info.end_time == ended


def test_the_note_is_updated_after_a_resumed_trial_and_after_remeasuring(server):
    tracking, trials = server.tracker(), [record(0, 0.6, 2.0), record(1, 0.5, 1.0), record(2, 0.7, 3.0)]
    tracking.log(2, [*trials[:2], record(2, state="paused")])
    assert "width=96" not in server.parent().data.tags["mlflow.note.content"]
    tracking.log(2, trials)
    assert "width=96" in server.parent().data.tags["mlflow.note.content"]
    again = Timing(0.9, 0.01, "here", 1.0)
    faster = replace(trials[2], costs={**trials[2].costs, "latency_ms": 0.9}, timings=(again, again))
    tracking.finish([*trials[:2], faster])
    parent = server.parent()
    assert "width=64" not in parent.data.tags["mlflow.note.content"], "dominated now"
    assert parent.data.metrics["hypervolume"] == pytest.approx(OBJECTIVES.hypervolume([*trials[:2], faster]))
    trial = server.children()[2].data
    assert (trial.metrics["latency_ms"], trial.metrics["latency_spread"]) == (0.9, 0.01)
    assert trial.tags["mlflow.note.content"] == "complete: accuracy 0.7000 at latency_ms 0.9"


def test_logging_a_trial_takes_four_calls_and_no_read(server, monkeypatch):
    tracking, trials = server.tracker(), [record(number, 0.5 - 0.1 * number, 1.0 + number) for number in range(3)]
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


@pytest.mark.slow
def test_workers_share_a_parent_run_and_update_each_others_front_tags(server):
    one, two = server.tracker(), server.tracker()
    one.log(0, [record(0, 0.5, 1.0)])
    trials = [record(0, 0.5, 1.0), record(1, 0.6, 0.9)]
    two.log(1, trials)
    parent, children = server.parent(), server.children()
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert server.on_front() == {1}
    trials.append(record(2, 0.9, 0.8))
    one.log(2, trials)
    two.log(3, [*trials, record(3, state="failed")])
    assert server.on_front() == {2}, "at the latest when the worker of the dominated trial logs its next one"


@pytest.mark.slow
def test_of_parent_runs_created_at_the_same_time_the_oldest_is_kept(server, monkeypatch):
    first = server.tracker()
    first.log(0, [record(0)])
    oldest = server.parent().info.run_id
    with monkeypatch.context() as patch:
        patch.setattr(runs.StudyRuns, "_search", lambda self: [])  # neither sees the other's
        late = [server.tracker() for _ in range(2)]
    assert len(server.parents()) == 3
    trials = [record(number) for number in range(3)]
    for number, worker in enumerate(reversed(late), start=1):
        worker.log(number, trials)
    assert server.parent().info.run_id == oldest
    assert {run.data.tags["mlflow.parentRunId"] for run in server.children().values()} == {oldest}
    assert set(server.children()) == {0, 1, 2}


def test_the_parent_run_of_a_worker_that_was_killed_is_deleted_at_the_end(server, monkeypatch):
    first = server.tracker()
    oldest = server.parent().info.run_id
    with monkeypatch.context() as patch:
        patch.setattr(runs.StudyRuns, "_search", lambda self: [])
        server.tracker()  # killed before it has seen the other parent run
    assert len(server.parents()) == 2
    first.finish([record(0)])
    assert server.parent().info.run_id == oldest


def test_studies_with_the_same_name_have_separate_parent_runs(server):
    for identity in ("id-1", "id-2"):
        server.tracker(identity=identity).finish([record(0)])
    assert sorted("trial" in run.data.tags for run in server.runs()) == [False, False, True, True]


def test_finish_logs_the_trials_of_killed_workers(server):
    tracking, trials = server.tracker(), [record(0), record(1, state="failed"), record(2, state="running")]
    half = tracking._runs
    half._client.create_run(half.experiment_id, tags={"trial": "0", **half._study_tag()})  # then it was killed
    tracking.finish(trials)
    parent, children = server.parent(), server.children()
    assert set(children) == {0, 1}
    assert children[0].info.status == "FINISHED"
    assert children[0].data.metrics["final_accuracy"] == 0.5
    assert children[0].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FINISHED"


def test_of_workers_that_end_at_the_same_time_one_run_of_each_trial_stays(server, monkeypatch):
    one, two, trials = server.tracker(), server.tracker(), [record(0), record(1)]
    log_trial = runs.StudyRuns.log_trial

    def both(self, trial, *args, **settings):
        if self is one._runs and trial.number == 0:  # after it has seen that no trial has a run
            two.finish(trials)
        log_trial(self, trial, *args, **settings)

    monkeypatch.setattr(runs.StudyRuns, "log_trial", both)
    one.finish(trials)
    assert sorted(run.data.tags.get("trial", "") for run in server.runs()) == ["", "0", "1"]


def test_finish_keeps_the_oldest_of_duplicate_runs(server):
    tracking = server.tracker()
    tracking.log(0, [record(0)])
    first = server.children()[0].info.run_id
    late = server.tracker()
    late._runs._trials.clear()
    late._runs.log_trial(record(0), summaries.trial_data(record(0), OBJECTIVES), name="", front=True)
    late.finish([record(0)])
    assert server.children()[0].info.run_id == first


@pytest.mark.parametrize(
    "broken",
    ["log_batch", *map(slow, ("create_run", "set_terminated", "search_runs", "log_text"))],
)
def test_after_an_outage_missing_trials_are_logged(server, monkeypatch, caplog, broken):
    tracking, trials = server.tracker(), [record(number, 0.5 + number / 10, 1.0 + number) for number in range(4)]
    tracking.log(0, trials[:1])
    monkeypatch.setattr(tracking_by_mlflow, "_retry_time", lambda began: 0.0)
    with monkeypatch.context() as patch:
        kind = type(tracking._runs._client)
        patch.setattr(
            kind, broken, lambda *_, **__: (_ for _ in ()).throw(OSError(f"no route to http://me:{SECRET}@host/"))
        )
        tracking.log(1, trials[:2])
        tracking.finish(trials[:2])
    assert SECRET not in caplog.text
    assert len([entry for entry in caplog.records if "trials continue" in entry.message]) == 1
    tracking.log(2, trials[:3])
    assert {1, 2} <= set(server.children())
    tracking.finish(trials)
    assert all(run.info.status == "FINISHED" for run in server.children().values())
    values = [values["accuracy"] for _, _, _, values in server.all_runs().values() if "accuracy" in values]
    assert all(len(steps) == 2 for steps in values), "a batch that is sent again adds no values"
    server.tracker().finish(trials)
    assert len(server.all_runs()) == 5


def test_a_run_without_a_trial_is_deleted(server):
    tracking = server.tracker()
    tracking.log(1, [record(0), record(1)])
    tracking.finish([record(0)])
    assert set(server.children()) == {0}


@pytest.mark.parametrize("another_worker", [False, True])
def test_a_trial_that_goes_on_after_a_pause_has_one_run_with_one_curve_and_the_sum_of_seconds(server, another_worker):
    tracking = server.tracker()
    stop = Stop("epoch 2: low gain", 2, threshold=0.9, beaten_by=(1,))
    tracking.log(0, [record(0, state="paused", stop=stop, training_s=4.0)])
    (run,) = server.children().values()
    assert (run.data.tags["state"], run.data.tags["reason"]) == ("paused", "epoch 2: low gain")
    whole = record(0, 0.75, training_s=10.0, curve=[(1, 0.25), (2, 0.5), (3, 0.75)])
    tracking = server.tracker() if another_worker else tracking
    for _ in range(2):
        tracking.log(0, [whole])
    tracking.finish([whole])
    (again,) = server.children().values()
    assert again.info.run_id == run.info.run_id
    assert {"state": "complete", "front": "true", "epochs": "3"}.items() <= again.data.tags.items()
    assert {again.data.tags[name] for name in ("reason", "rung", "beaten_by")} == {""}
    assert [(step, value) for step, value, _ in server.history(again, "accuracy")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert (again.data.metrics["training_s"], again.data.metrics["final_accuracy"]) == (10.0, 0.75)


@pytest.mark.parametrize("lost", ["create_run", *map(slow, ("log_batch", "set_terminated"))])
def test_a_lost_response_leads_to_no_duplicate_values(server, monkeypatch, lost):
    tracking, trials = server.tracker(), [record(0, 0.5, 1.0), record(1, 0.6, 2.0)]
    tracking.log(0, trials[:1])
    monkeypatch.setattr(tracking_by_mlflow, "_retry_time", lambda began: 0.0)
    with monkeypatch.context() as patch:
        original = getattr(type(server.client), lost)

        def lose(*args, **more):
            original(*args, **more)
            raise OSError("timed out")

        patch.setattr(type(server.client), lost, lose)
        tracking.log(1, trials)
    tracking.log(1, trials)
    assert set(server.children()) == {0, 1}
    assert server.history(server.children()[1], "accuracy") == [(1, 0.3, 2500), (2, 0.6, 5000)]


def test_after_a_failure_no_attempt_is_made_for_ten_times_its_duration(server, monkeypatch):
    seconds, tries = [100.0], []

    def fail(_):
        tries.append(seconds[0])
        seconds[0] += 3.0
        raise OSError("down")

    monkeypatch.setattr(tracking_by_mlflow.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(client, "connect", fail)
    tracking = server.tracker()
    for at in (104, 132.9, 133.1, 160):
        seconds[0] = at
        tracking.log(0, [record(0)])
    assert tries == [100.0, 133.1]


def test_of_two_workers_creating_the_database_one_succeeds(tmp_path):
    file = tmp_path / "mlflow.db"

    def fill(name, meanwhile=lambda: None):
        def write(new):
            assert not file.exists()
            with closing(sqlite3.connect(new)) as database:
                meanwhile()
                database.execute(f"CREATE TABLE {name} (x)")
                database.commit()

        return write

    client.create_database(file, fill("slow", meanwhile=lambda: client.create_database(file, fill("fast"))))
    client.create_database(file, fill("late"))
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("fast",)]
        assert database.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_only_the_file_that_is_created_does_without_waiting_for_the_disk(tmp_path):
    def synchronous(file):
        engine = sqlalchemy.create_engine(f"sqlite:///{file}")
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar()
        engine.dispose()
        return found

    full, found = synchronous(tmp_path / "before.db"), []
    client.create_database(
        tmp_path / "mlflow.db", lambda new: found.extend(map(synchronous, [new, tmp_path / "other.db"]))
    )
    assert [*found, synchronous(tmp_path / "mlflow.db")] == [0, full, full]
    assert full != 0


def test_the_folder_of_a_start_that_was_killed_is_deleted_by_the_next_one(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = [tmp_path / f".mlflow-{name}" for name in (f"{ended.pid}-a", "x7f2", f"{os.getpid()}-b")]
    for folder in left:
        folder.mkdir()
        (folder / "filled.db").touch()
    (tmp_path / "mlflow.db").touch()
    client.create_database(tmp_path / "mlflow.db", lambda new: pytest.fail("it exists"))
    assert [folder.exists() for folder in left] == [False, False, True], "only that of a running process is kept"


@pytest.mark.parametrize("address", ["http://me:{}@127.0.0.1:9/", "postgresql+psycopg://me:{}@127.0.0.1:9/none"])
def test_a_server_or_database_that_is_down_only_causes_warnings(server, monkeypatch, caplog, address):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("mlflow.store.db.utils.time.sleep", lambda _: None)  # between its ten attempts
    tracking = server.tracker(uri=address.format(SECRET))
    tracking.log(0, [record(0)])
    tracking.finish([record(0)])
    assert tracking.url() == ""
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING] * 2
    assert SECRET not in caplog.text


@pytest.mark.slow
def test_hypervolume_is_logged_by_number_of_ended_trials_and_by_seconds_of_work(server):
    tracking, trials = server.tracker(), []
    for number, accuracy in enumerate([0.3, 0.9, 0.2, 0.8, 0.95, 0.5]):
        state = "pruned" if number == 3 else "complete"
        ended = record(number, accuracy, 1 + 5 * accuracy**2, state=state, ended_at=float(number))
        trials.append(replace(ended, training_s=8.5, latency_s=1.5))
        tracking.log(number, trials)
    tracking.finish(trials)
    parent = server.parent()
    steps, values, _ = zip(*server.history(parent, "hypervolume"), strict=True)
    assert steps == (1, 2, 3, 4, 5, 6)
    seconds, by_seconds, _ = zip(*server.history(parent, "hypervolume_by_seconds"), strict=True)
    assert seconds == (10, 20, 30, 40, 50, 60)
    assert by_seconds == values
    assert list(values) == sorted(values)
    assert len(set(values)) > 3
    assert 0 < values[0] < values[-1] < 1
    expected = {"trials_complete": 5, "trials_pruned": 1, "trials_failed": 0, "front_size": 5}
    assert expected.items() <= parent.data.metrics.items()


BASELINE = BaselineResult("5-gram", {"accuracy": 0.95}, {"accuracy": 0.85}, latency_ms=0.125, fit_s=0.5)


def test_the_parent_run_names_the_best_baseline(server):
    tracker = MlflowTracking(uri=server.uri, experiment=server.experiment)
    worse = replace(BASELINE, name="majority class", metrics={"accuracy": 0.5})
    tracker.start("nlp", identity="id-1", objectives=OBJECTIVES, config="", baselines=[worse, BASELINE])
    tracker.finish([record(0, 0.5, 1.0)])
    data = server.parent().data
    assert data.tags["baseline"] == "5-gram"
    names = {"front_size", "hypervolume", "hypervolume_by_seconds"}
    names |= {f"trials_{state}" for state in ("complete", "failed", "paused", "pruned")}
    assert data.metrics.keys() == names, "those of a baseline are in its own run: here their charts would come first"
    assert "majority class 0.500, 5-gram 0.950" in data.tags["mlflow.note.content"]
    assert "No model on the front beats 5-gram" in data.tags["mlflow.note.content"]


def test_each_baseline_has_one_nested_run(server):
    worse = replace(BASELINE, name="majority class", metrics={"accuracy": 0.5})
    trackers = [MlflowTracking(uri=server.uri, experiment=server.experiment) for _ in range(3)]
    for tracker in trackers[:2]:  # workers that started together
        tracker.start("nlp", identity="id-1", objectives=OBJECTIVES, config="", baselines=[worse, BASELINE])
    for tracker in trackers[:2]:
        tracker._runs.log_baseline(summaries.baseline_data(BASELINE, OBJECTIVES))
    for tracker in trackers:
        tracker.start("nlp", identity="id-1", objectives=OBJECTIVES, config="", baselines=[worse, BASELINE])
        tracker.finish([record(0, 0.5, 1.0)])
    assert sorted(run.data.tags["mechanism"] for run in server.baselines()) == ["5-gram", "majority class"]
    (run,) = (run for run in server.baselines() if run.data.tags["mechanism"] == "5-gram")
    expected = {"final_accuracy": 0.95, "validation_accuracy": 0.95, "test_accuracy": 0.85, "latency_ms": 0.125}
    assert run.data.metrics == expected
    assert run.data.tags["mlflow.parentRunId"] == server.parent().info.run_id
    assert run.info.status == "FINISHED"


def test_the_front_is_a_table_artifact_and_a_table_in_the_note(server):
    trials = [record(0, 0.5, 1.0), record(1, 0.9, 3.0), record(2, state="pruned"), record(3, 0.4, 2.0)]
    server.tracker().finish(trials)
    table = json.loads(server.artifact("front.json"))
    names = ["trial", "accuracy", "on test", "latency_ms", "latency_spread", "parameters", "architecture"]
    assert table["columns"] == names
    assert [row[:4] for row in table["data"]] == [[0, 0.5, None, 1.0], [1, 0.9, None, 3.0]]
    tags = server.parent().data.tags
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "front.json", "type": "table"}]
    assert "| 1 | 3 | 0.9000 | 1000 | linformer depth=2 width=64" in tags["mlflow.note.content"]


def test_characters_that_mlflow_refuses_in_names_are_replaced(server, caplog):
    server.tracker().finish([record(0, name="a<b>")])
    assert server.children()[0].data.params["setting.a_b_.rank"] == "16"
    assert not caplog.records


def test_the_parent_run_has_the_reason_of_the_last_end(server):
    server.tracker().finish([record(0)], "the time budget is used up")
    server.tracker().finish([record(0)], "SIGINT while connected to postgresql://me:hunter2@host/db" + 600 * ".")
    ended = server.parent().data.tags["run_ended"]
    assert ended.startswith("SIGINT while connected to postgresql://me:***@host/db...")
    assert len(ended) == 500


def test_a_study_without_complete_trials_can_be_finished(server, caplog):
    server.tracker().finish([])
    server.tracker(identity="id-2").finish(
        [record(0, state="failed", costs={}, curve=[], architecture={}, training_s=0.0, latency_s=0.0)]
    )
    assert not caplog.records


def test_no_password_is_logged(server):
    address = f"postgresql+psycopg://me:{SECRET}@host/db"
    tracking = server.tracker(identity=address, config=f"tracking: {{uri: '{address}'}}\n")
    tracking.log(0, [record(0, state="failed", error=f"cannot reach {address}")])
    tracking.finish([record(0)])
    folder = Path(server.uri.removeprefix("sqlite:///")).parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any("config" in path.parts for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        (None, "python -m search.ui"),
        ("sqlite:///mlflow.db", "python -m search.ui"),
        ("sqlite:////data/my runs.db", "python -m search.ui --uri 'sqlite:////data/my runs.db'"),
        (f"postgresql://me:{SECRET}@host/db", "python -m search.ui --uri 'postgresql://me:***@host/db'"),
        (f"https://me:{SECRET}@host", ""),
    ],
)
def test_the_ui_command_opens_the_database(uri, command, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert MlflowTracking(uri=uri).ui_command() == command


def test_the_load_of_the_machine_is_logged_where_mlflow_is_told_to(server, monkeypatch, caplog):
    pytest.importorskip("psutil", reason="an extra: pip install 'paretoformer[system]'")
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor as Monitor

    published, publish = threading.Event(), Monitor.publish_metrics
    monkeypatch.setattr(Monitor, "publish_metrics", lambda *args: (publish(*args), published.set()))
    server.tracker().finish([record(0)])
    assert not [name for name in server.parent().data.metrics if name.startswith("system/")]
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    tracking = server.tracker()
    assert published.wait(60)
    tracking.finish([record(0)])
    logged = [name for name in server.parent().data.metrics if name.startswith("system/")]
    assert f"system/{platform.node()}/cpu_utilization_percentage" in logged
    assert server.parent().info.status == "FINISHED"
    assert not caplog.records


def test_a_password_in_the_storage_url_does_not_change_the_parent_run(server):
    for identity in (f"postgresql://me:{SECRET}@host/db", "postgresql://me:***@host/db"):
        server.tracker(identity=identity)
    assert len(server.parents()) == 1


def test_the_saved_view_filters_and_sorts_the_trials_and_baselines_of_its_study(server):
    import base64
    import zlib

    tracking = server.tracker()
    tracking.baselines = [BASELINE]
    tracking.finish([record(0, 0.4), record(1, 0.5, 2.0), record(2, state="pruned")])
    experiment = server.client.get_experiment_by_name(server.experiment)
    study_id = tracking._runs.study_id
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{study_id}"])
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    assert study_id in tracking.url()
    best_first = [f"{state['orderByKey']} DESC"]
    found = server.client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=best_first)
    assert [run.data.tags.get("trial", "baseline") for run in found] == ["baseline", "1", "0"]
    assert state["compareRunCharts"][-1]["selectedParams"] == ["width"], "only settings that vary"


@pytest.mark.slow
def test_long_values_and_curves_are_logged_within_the_limits_of_mlflow(server):
    curve = [(epoch, 0.5) for epoch in range(1, 2001)]
    settings = {f"setting{number}": "x" * 9000 for number in range(150)}
    trial = record(0, curve=curve, architecture={"model": settings, "pattern": ["linear"]}, error="y" * 9000)
    server.tracker().log(0, [trial])
    run = server.children()[0]
    assert len(run.data.params) == 151
    assert len(server.history(run, "accuracy")) == 2000


def test_a_truncated_note_tells_the_number_of_omitted_rows():
    rows = [{"trial": number, "architecture": "x" * 100} for number in range(100)]
    text = markdown(rows, limit=2000)
    assert len(text) <= 2000
    shown = text.count("x" * 100)
    assert f"and {100 - shown} more" in text


def test_without_tracking_there_is_no_ui():
    tracking = Tracking()
    tracking.start("nlp", identity="id", objectives=OBJECTIVES, config="")
    tracking.log(0, [record(0)])
    tracking.finish([record(0)])
    assert (tracking.ui_command(), tracking.url()) == ("", "")
