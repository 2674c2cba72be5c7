"""A worker that is killed at a named point of the code; a second one takes over, and the results are the same."""

import multiprocessing
import os
import pkgutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import chaos
import pytest
from test_same_again import PATIENCE, make_stale
from tiny_task import QUICK, opened

from search.costs.exclusive import WaitWhileMeasuring
from search.study.records import State
from search.study.storage import load_study, open_storage
from search.study.store import TrialStore
from search.tracking import client

TRIALS = 4
MEASURED = {"_target_": "search.costs.latency.MeasuredLatency", **QUICK}


@dataclass(frozen=True)
class Point:
    """Where a worker is killed: at a call of the last of ``path``, within one of each function before it.

    Attributes:
        path: dotted names.
        call: of the first function, counted from 1.
        after: whether the last function is left before.
        lost: epochs that are trained again.
        only: a condition of the last function's arguments.
        measured: whether latencies are measured, so that the first worker holds the lock of measurements.
    """

    path: tuple[str, ...]
    call: int = 1
    after: bool = False
    lost: int = 0
    only: Callable[..., bool] = lambda *_: True
    measured: bool = False


def of_state(state):
    return lambda record, *_: record.state == state


TRAINING = "search.training.learner.LightningTraining"
MLFLOW = "search.tracking.mlflow.MlflowTracking"
POINTS = {
    "architecture sampled, not stored": Point(("search.study.store.TrialStore.begin",), 3),
    "measuring": Point(("search.evaluate._write_costs", "search.costs.clock.Machine.reference"), 2, measured=True),
    "measured, not stored": Point(("search.evaluate._write_costs", "search.study.attributes.OpenTrial.write"), 2),
    "costs stored, training not begun": Point(("search.training.learner.LightningLearner.train",), 2),
    "in an epoch": Point(("search.training.module.TrainingModule.training_step",), 59, lost=1),
    "epoch stored, no checkpoint of it": Point((f"{TRAINING}.save",), 5, lost=1),
    "checkpoint half written": Point((f"{TRAINING}.save", "pathlib.Path.replace"), 5, lost=1),
    "checkpoint written": Point((f"{TRAINING}.save",), 5, after=True),
    "complete, not told": Point(("search.worker.values",), only=of_state(State.COMPLETE), lost=1),
    "paused, not told": Point(("search.worker.values",), only=of_state(State.PAUSED)),
    "told, not logged": Point(("optuna.study.Study.optimize",), 2, after=True),
    "told, run created, not logged": Point((f"{MLFLOW}.log", "search.tracking.client.log_batch"), 2),
    "logged, front not": Point((f"{MLFLOW}.log", "search.tracking.runs.StudyRuns.tag_front"), 2),
    "measuring again": Point(
        ("search.costs.remeasure.remeasure", "search.costs.clock.Machine.reference"), measured=True
    ),
    "measured again, not stored": Point(("search.study.store.TrialStore.write_timings",)),
    "measured again, MLflow not": Point((f"{MLFLOW}.finish",)),
    "MLflow half finished": Point((f"{MLFLOW}.finish", "search.tracking.runs.StudyRuns.links")),
}


def kill_at(point):
    """Let this process end by SIGKILL at ``point``; it leaves a file that says whether measurements were locked."""

    def kill():
        with WaitWhileMeasuring() as wait:
            Path("locked").write_text(str(wait._is_locked()))
        os.kill(os.getpid(), signal.SIGKILL)

    def arm(names, call):
        owner, _, name = names[0].rpartition(".")
        owner = pkgutil.resolve_name(owner)
        function, calls = getattr(owner, name), []

        @wraps(function)
        def patched(*arguments, **named):
            if len(names) > 1:
                calls.append(None)
                if len(calls) == call:
                    arm(names[1:], 1)
                return function(*arguments, **named)
            if not point.only(*arguments):
                return function(*arguments, **named)
            calls.append(None)
            if len(calls) < call:
                return function(*arguments, **named)
            if point.after:
                function(*arguments, **named)
            return kill()

        setattr(owner, name, patched)

    arm(point.path, point.call)


def killed_worker(config, folder, number, name):
    kill_at(POINTS[name])
    chaos.worker(config, folder, number, 3)


@pytest.fixture(scope="module")
def context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *chaos.IMPORTED])
    return context


def configuration(folder, name):
    config = chaos.configuration(folder, f"sqlite:///{folder}/studies.db", TRIALS, epoch_s=0.0)
    latency = {"latency": MEASURED} if POINTS[name].measured else {}
    return {**config, **latency, "pruner": {**config["pruner"], "patience": PATIENCE, "first": 2}}


def ended_with(context, function, *arguments):
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, context):
    """What the study has found without a kill."""
    folder = tmp_path_factory.mktemp("whole")
    config = configuration(folder, "told, not logged")
    assert ended_with(context, chaos.worker, config, folder, 1, 3) == 0
    outline = chaos.outline(config["storage"]["url"])
    assert {State.COMPLETE, State.PAUSED} == {state for state, *_ in outline}
    return outline


def architectures(url):
    with chaos.open_read_only(url) as storage:
        records = TrialStore(load_study(storage, "chaos")).all_records().values()
    return {record.number: record.architecture for record in records if record.architecture}


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_a_second_worker_takes_over_where_the_first_one_was_killed(name, tmp_path, context, uninterrupted):
    point, config = POINTS[name], configuration(tmp_path, name)
    url = config["storage"]["url"]
    client.connect(config["tracking"]["uri"])  # creates the file, copied from one that other tests have made
    assert ended_with(context, killed_worker, config, tmp_path, 1, name) == -signal.SIGKILL
    assert (tmp_path / "locked").read_text() == "True" or not point.measured
    before = architectures(url)
    opened.append(storage := open_storage(url=url))
    make_stale(load_study(storage, "chaos"))
    assert ended_with(context, chaos.worker, config, tmp_path, 2, 3) == 0, (tmp_path / "worker-2.log").read_text()
    after = architectures(url)
    assert {number: after[number] for number in before} == before
    chaos.check(config, tmp_path, point.lost)
    if not point.measured:
        assert chaos.outline(url) == uninterrupted
