import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from tiny_task import OBJECTIVES, tiny_study

from search.study import processes
from search.study.attributes import TRAINING
from search.study.database import open_database
from search.study.requeue import fail_stale, ordinals, requeue, requeue_interrupted
from search.study.storage import get_or_set_attr, open_storage
from search.study.store import TrialStore
from spaces.dimensions import ConfigError

# Tests use ask and tell, without the heartbeats of Study.optimize.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")


class InTwoMinutes(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(minutes=2)


def backend(study):
    return getattr(study._storage, "_backend", study._storage)


def sample(study):
    trial = study.ask()
    trial.suggest_int("depth", 1, 9)
    return trial


def test_an_existing_study_is_opened_again(url):
    first = tiny_study(url)
    first.tell(sample(first), [0.5, 1.0])
    again = tiny_study(url)
    assert [(each.number, each.state, each.metric) for each in TrialStore(again).records()] == [(0, "complete", 0.5)]


def test_a_different_space_is_refused_and_the_difference_is_listed(url):
    tiny_study(url, identity={"space": {"model": {"depth": 2, "width": {"choice": [1, 2]}}}, "seed": 0})
    for identity, messages in [
        (
            {"space": {"model": {"depth": 3, "width": {"choice": [1, 2]}}}, "seed": 0},
            ["space.model.depth: the study has 2, this run 3"],
        ),
        (
            {"space": {"model": {"depth": 2, "width": {"choice": [1, 2, 3]}}}, "seed": 1},
            ["choice: the study has [1, 2], this run", "seed"],
        ),
        ({"space": {"model": {"depth": 2}}, "seed": 0}, ["space.model.width: the study has {", "this run has none"]),
        (
            {"space": {"model": {"depth": 2, "width": {"choice": [1, 2]}}, "x": 1}, "seed": 0},
            ["space.x: the study has none"],
        ),
    ]:
        with pytest.raises(ConfigError) as error:
            tiny_study(url, identity=identity)
        assert all(message in str(error.value).replace("run has 3", "run 3") for message in messages), str(error.value)
        assert "study=NAME" in str(error.value)


@pytest.mark.slow
def test_workers_that_start_at_the_same_time_share_one_study(url):
    code = (
        "import sys, optuna; from search.study.storage import open_storage, open_study\n"
        "sampler = optuna.samplers.RandomSampler()\n"
        "open_study(open_storage(url=sys.argv[1]), 'one', directions={'a': 'maximize'}, sampler=sampler, identity={})\n"
    )
    root = str(Path(__file__).parents[1])
    workers = [
        subprocess.Popen([sys.executable, "-c", code, url], env={**os.environ, "PYTHONPATH": root}) for _ in range(2)
    ]
    assert [worker.wait() for worker in workers] == [0, 0]
    study = tiny_study(url)
    assert optuna.get_all_study_names(study._storage) == ["one", "tiny"]


@pytest.mark.slow
def test_a_shared_attribute_is_computed_once(url):
    first, second = tiny_study(url), tiny_study(url)
    assert get_or_set_attr(first, "ceilings", lambda: [1.5]) == [1.5]
    assert get_or_set_attr(second, "ceilings", lambda: [9.9]) == [1.5]


@pytest.mark.slow
def test_of_workers_that_compute_a_shared_attribute_at_the_same_time_the_first_one_sets_it(url):
    first, second = tiny_study(url, identity={"seed": 0}), tiny_study(url, identity={"seed": 0})

    def compute():
        get_or_set_attr(first, "id", lambda: "first")
        return "second"

    assert get_or_set_attr(second, "id", compute) == "first"
    second.set_user_attr("identity", '{"seed": 1}')
    assert first.user_attrs["identity"] == '{"seed": 0}'
    second.set_user_attr("run_end", 1)
    second.set_user_attr("run_end", 2)  # the latest one counts
    assert first.user_attrs["run_end"] == 2


def test_rows_are_in_the_order_of_first_starts_whenever_the_history_is_read(url):
    """The first trial is interrupted and queued again, while the second one, queued before that, is started."""
    study = tiny_study(url)
    goes_on, goes_on_history = TrialStore(study), None
    TrialStore(study).enqueue_first([{"depth": 7}, {"depth": 3}])
    first = sample(study)
    goes_on_history = goes_on.history(OBJECTIVES)
    study.tell(first, state=TrialState.FAIL)
    requeue_interrupted(study)
    second = sample(study)
    started_again = TrialStore(study)
    assert started_again.history(OBJECTIVES).numbers.tolist() == [0, 1]
    study.tell(second, state=TrialState.PRUNED)
    sample(study)
    for store in (goes_on, started_again, TrialStore(study)):
        assert store.history(OBJECTIVES).numbers.tolist() == [0, 1]
    assert goes_on.history(OBJECTIVES) is goes_on_history


def test_parameters_are_queued_for_new_studies_only(url):
    study = tiny_study(url)
    TrialStore(study).enqueue_first([{"depth": 7}, {"depth": 3}])
    TrialStore(study).enqueue_first([{"depth": 5}])
    assert [sample(study).params["depth"] for _ in range(2)] == [7, 3]
    TrialStore(study).enqueue_first([{"depth": 5}])
    assert not [trial for trial in study.trials if trial.state == TrialState.WAITING]


def test_of_two_trials_that_replace_the_same_one_the_first_counts(url):
    """Two workers may resume the same paused trial, or requeue that of a dead worker, at the same time."""
    study = tiny_study(url)
    study.tell(sample(study), state=TrialState.FAIL)
    for _ in range(2):
        requeue(study, 0, tries=2)
    store = TrialStore(study)
    first, second = study.ask(), study.ask()
    assert [store.is_queued_twice(number) for number in (0, 1, 2)] == [False, False, True]
    for trial in (first, second):
        study.tell(trial, state=TrialState.FAIL)
    requeue_interrupted(study)
    assert [trial.user_attrs["replaces"] for trial in study.trials[1:]] == [0, 0, 1]
    assert store.is_queued_twice(2), "also after its successor has been replaced"
    assert list(store.all_records()) == [0], "nobody is told of the second one"


def test_ordinals_do_not_depend_on_interruptions(url):
    study = tiny_study(url)
    for interrupted in (False, True, True, False):
        study.tell(sample(study), **({"state": TrialState.FAIL} if interrupted else {"values": [0.5, 1.0]}))
        requeue_interrupted(study)
    sample(study)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "RUNNING"]
    assert ordinals(study.trials) == [0, 1, 1, 1, 2]


def test_a_trial_that_was_interrupted_while_it_was_sampled_is_sampled_from_the_beginning(tmp_path):
    def two(trial):
        return trial.suggest_float("lr", 0, 1), trial.suggest_float("dropout", 0, 1)

    whole, study = (tiny_study(f"sqlite:///{tmp_path / name}") for name in ("a.db", "b.db"))
    expected = [two(whole.ask()), two(whole.ask())]
    interrupted = study.ask()
    interrupted.suggest_float("lr", 0, 1)
    study.tell(interrupted, state=TrialState.FAIL)
    requeue_interrupted(study)
    assert [two(study.ask()), two(study.ask())] == expected


@pytest.mark.slow
def test_samples_depend_on_the_seed_and_the_trials_before_alone(tmp_path):
    def values(name, seed, reopened):
        sampled = []
        for step in range(4):
            if step in reopened:
                study = tiny_study(f"sqlite:///{tmp_path / name}", seed=seed)
            trial = sample(study)
            study.tell(trial, [0.1, 1.0])
            sampled.append(trial.params["depth"])
        return sampled

    assert values("a.db", 0, {0}) == values("b.db", 0, {0, 1, 3})
    assert values("a2.db", 0, {0}) != values("c.db", 1, {0})


def test_a_requeued_trial_has_the_same_parameters_and_counts_once(url):
    study = tiny_study(url)
    lost = sample(study)
    lost.set_user_attr("architecture", "{}")
    lost.set_user_attr(TRAINING, {"curve": [[1, 0.5]]})
    study.tell(lost, state=TrialState.FAIL)
    requeue_interrupted(study)
    requeue_interrupted(study)
    assert TrialStore(study).records() == []
    again = study.ask()
    assert again.number == 1
    assert again.suggest_int("depth", 1, 9) == lost.params["depth"]
    assert TRAINING not in again.user_attrs, "attributes of the failed trial are not copied"
    study.tell(again, [0.5, 1.0])
    assert [each.number for each in TrialStore(study).records()] == [0]


def test_a_failed_trial_that_is_not_requeued_counts(url):
    study = tiny_study(url)
    study.tell(sample(study), state=TrialState.FAIL)
    assert [each.state for each in TrialStore(study).records()] == ["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [True, False])
def test_the_trial_of_a_killed_worker_is_requeued_until_three_have_died(url, sampled, monkeypatch):
    """The dead worker's last heartbeat is moved into the past, which saves waiting; it is this process, which runs."""
    monkeypatch.setattr(processes, "process_state", lambda worker: processes.ProcessState.UNKNOWN)
    study = tiny_study(url, heartbeat_s=1, grace_s=60)
    storage = backend(study)
    for tries in (1, 2, 3):
        trial = study.ask()
        trial.suggest_int("depth", 1, 9)
        if sampled:
            own = TrialStore(study).begin(trial, {"model": {"depth": 3}})
            own.write(curve=[(epoch, 0.5) for epoch in range(1, tries + 1)], costs={"latency_ms": 1.0})
        else:
            trial.set_user_attr("worker", "dead:1")
        storage.record_heartbeat(trial._trial_id)
        fail_stale(study, 60)
        assert study.trials[-1].state == TrialState.RUNNING, "within the grace period"
        with storage.engine.begin() as connection:
            hour_ago = "datetime('now', '-1 hour')" if "sqlite" in url else "now() - interval '1 hour'"
            connection.execute(sqlalchemy.text(f"UPDATE trial_heartbeats SET heartbeat = {hour_ago}"))
        fail_stale(study, 60)
        assert study.trials[trial.number].state == TrialState.FAIL
        queued = [each for each in study.trials if each.state == TrialState.WAITING]
        assert len(queued) == (tries < 3), "not after three workers died"
    (record,) = TrialStore(study).records()
    reason = "3 workers died while they ran it, as when memory runs out"
    assert (record.number, record.state, record.reason) == (0, "pruned" if sampled else "failed", reason)
    if sampled:
        assert (record.epochs, record.stop.epoch, record.costs) == (3, 3, {"latency_ms": 1.0})
        assert study.trials[-1].params == {"depth": trial.params["depth"]}
        assert study.trials[-1].constraints == {"unusable": 1.0}, "which samplers avoid"
        for _ in range(2):
            fail_stale(study, 60)
        assert len(study.trials) == 4, "it is pruned once"


def test_the_trial_of_a_worker_that_died_before_its_first_heartbeat_is_requeued(url, monkeypatch):
    study = tiny_study(url)
    sample(study)
    fail_stale(study, 60)
    assert study.trials[0].state == TrialState.RUNNING

    monkeypatch.setattr("search.study.requeue.datetime", InTwoMinutes)
    fail_stale(study, 60)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_longer_than_the_grace_period_is_not_requeued_while_heartbeats_arrive(url, monkeypatch):
    study = tiny_study(url)
    trial = sample(study)
    backend(study).record_heartbeat(trial._trial_id)
    trial.set_user_attr("worker", "alive:1")

    monkeypatch.setattr("search.study.requeue.datetime", InTwoMinutes)
    fail_stale(study, 60)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "nonsense"}, "url: not a database URL"),
        ({"url": "sqlite:////no/such/folder/x.db"}, "can't be opened"),
        ({"url": "postgresql+psycopg://me:secret@127.0.0.1:1/none"}, "can't be opened"),
        ({"url": "nosuch://me:secret@host/none"}, "can't be opened"),
        ({"url": "sqlite://", "heartbeat_s": 60, "grace_s": 10}, "0 < heartbeat_s < grace_s"),
    ],
)
def test_the_error_of_a_storage_that_cannot_be_opened_hides_the_password(settings, message, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(ConfigError, match=message) as error:
        open_storage(**settings)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "message", "attempts"),
    [
        (IntegrityError, "duplicate key value", 35),
        (ProgrammingError, 'relation "studies" already exists', 35),
        (OperationalError, "table studies already exists", 35),
        (OperationalError, "FATAL:  the database system is starting up", 35),
        (OperationalError, "connection refused", 5),
        (ProgrammingError, "permission denied", 5),
    ],
)
def test_opening_is_retried_more_often_while_tables_are_created_or_the_server_starts(
    monkeypatch, error, message, attempts
):
    monkeypatch.setattr("search.study.database.time.sleep", lambda _: None)
    tried = []

    def create(url, **_):
        tried.append(url)
        raise error("CREATE TABLE", {}, Exception(message))

    with pytest.raises(ConfigError, match="can't be opened"):
        open_database("sqlite:///a.db", create)
    assert len(tried) == attempts


@pytest.mark.slow
def test_several_threads_write_to_one_sqlite_file(tmp_path):
    study = tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")
    failures = []

    def write():
        mine = tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")
        try:
            for _ in range(5):
                mine.tell(sample(mine), [0.1, 1.0])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(study.trials) == 20
    with backend(study).engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"


def test_objectives_have_their_names_in_optuna(url):
    assert tiny_study(url).metric_names == ["accuracy", "latency_ms"]
