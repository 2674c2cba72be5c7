"""The typed store: what is written of a trial is what any other worker reads."""

from dataclasses import asdict, replace
from random import Random

import optuna
import pytest
from optuna.trial import TrialState
from tiny_task import OBJECTIVES, tiny_study

from search.report.explain import explain
from search.study.records import COUNTED, State, Stop, Timing
from search.study.store import TrialStore
from spaces.baselines import BaselineResult

# Tests ask for single trials, where a run lets Optuna optimise.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
ARCHITECTURE = {"pattern": ["softmax"], "model": {"depth": 1}, "train": {"epochs": 2}}
TIMING = Timing(ms=0.25, spread=0.1, host="here", at=5.0, reference_ms=0.1)
COSTS = {"latency_ms": 0.25, "flops": 9.0}
STOP = Stop("epoch 1: enough", 1, threshold=0.6, beaten_by=(3, 1))
RUN = {"timings": (TIMING,), "costs": COSTS, "latency_s": 0.5, "cpu_seconds": [0.25], "curve": [(1, 0.5)]}


@pytest.fixture(params=["memory", "sqlite"])
def study(request, tmp_path):
    if request.param == "sqlite":
        return tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")
    return optuna.create_study(directions=["maximize", "minimize"])


def reread(study):
    return TrialStore(study).all_records()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({**RUN, "state": State.COMPLETE, "metric": 0.5, "test_metrics": {"accuracy": 0.4}}, [0.5, 0.25]),
        pytest.param({**RUN, "state": State.PRUNED, "stop": STOP}, None),
        pytest.param({**RUN, "state": State.PAUSED, "stop": STOP, "training_s": 2.0, "overhead": 0.1}, None),
        pytest.param({"state": State.DUPLICATE, "duplicate_of": 7, "costs": COSTS}, None),
        pytest.param({"state": State.DUPLICATE, "duplicate_of": 7, "costs": COSTS}, [0.5, 0.25]),
    ],
    ids=["complete", "pruned", "paused", "duplicate of a pruned trial", "duplicate of a complete trial"],
)
def test_a_trial_is_read_as_it_was_written(study, changes, told):
    trial = study.ask()
    own = TrialStore(study).begin(trial, ARCHITECTURE)
    assert reread(study)[0] == own.record
    assert own.record.state == State.RUNNING
    written = own.write(**changes)
    study.tell(trial, told, state=TrialState.PRUNED if told is None else TrialState.COMPLETE)
    read = reread(study)[0]
    if changes["state"] == State.DUPLICATE:
        assert (read.state, read.duplicate_of, read.costs) == (State.DUPLICATE, 7, COSTS)
        return
    assert read.ended_at is not None
    assert replace(read, ended_at=None) == written
    assert read.worker.count(":") == 1


def test_only_states_that_count_are_among_the_records(study):
    store = TrialStore(study)
    for state in (State.COMPLETE, State.PRUNED, State.PAUSED, State.DUPLICATE, State.OVER_QUOTA):
        trial = study.ask()
        store.begin(trial, ARCHITECTURE).write(state=state)
        values = [0.5, 0.25] if state == State.COMPLETE else None
        study.tell(trial, values, state=TrialState.COMPLETE if values else TrialState.PRUNED)
    failed = study.ask()
    study.tell(failed, state=TrialState.FAIL)
    running = study.ask()
    assert [record.state for record in store.records()] == ["complete", "pruned", "paused", "failed", "running"]
    assert {record.state for record in store.all_records().values()} - COUNTED == {"duplicate", "over_quota"}
    study.tell(running, state=TrialState.FAIL)
    store.requeue_interrupted()
    assert store.record(running.number).state == State.REPLACED
    assert store.waiting()


def test_a_trial_whose_worker_died_before_it_told_that_it_is_paused_was_not_paused(study):
    """Or it would go on when it is requeued, as if it had been resumed."""
    trial = study.ask()
    TrialStore(study).begin(trial, ARCHITECTURE).write(**RUN, state=State.PAUSED, stop=STOP)
    study.tell(trial, state=TrialState.FAIL)
    assert TrialStore(study).records()[0].state == State.FAILED


def test_current_timings_replace_the_first_ones_everywhere(study):
    store = TrialStore(study)
    for ms in (0.5, 0.75):
        trial = study.ask()
        own = store.begin(trial, ARCHITECTURE)
        first = Timing(ms, 0.0, "here", 1.0)
        own.write(timings=(first,), costs={"latency_ms": ms}, state=State.COMPLETE, metric=0.5)
        study.tell(trial, [0.5, ms])
    assert store.complete_when_remeasured("here") is None
    store.write_timings({1: TIMING}, OBJECTIVES, host="here", complete=2)
    assert [store.complete_when_remeasured(host) for host in ("here", "there")] == [2, None]
    for records in (store.records(), TrialStore(study).records()):
        assert [record.costs["latency_ms"] for record in records] == [0.5, 0.25]
        assert [timing.ms for timing in records[1].timings] == [0.75, 0.25]
        assert records[1].timing == TIMING
        assert [record.number for record in records if len(record.timings) > 1] == [1]


def complete_trials(study, count):
    """Trials that were measured once, in 2 ms."""
    for _ in range(count):
        trial = study.ask()
        own = TrialStore(study).begin(trial, ARCHITECTURE)
        timing = replace(TIMING, ms=2.0)
        own.write(timings=(timing,), costs={"latency_ms": timing.ms}, state=State.COMPLETE, metric=0.5)
        study.tell(trial, [0.5, timing.ms])


def test_of_workers_that_measure_again_at_the_same_time_none_loses_its_timings(url, monkeypatch):
    """Whichever write of one the other one comes before."""
    study = tiny_study(url)
    complete_trials(study, 4)
    for at in range(1, 4):
        store, other, writes = TrialStore(study), TrialStore(tiny_study(url)), []
        set_user_attr, here, there = study.set_user_attr, replace(TIMING, ms=float(at)), replace(TIMING, ms=10.0 + at)

        def interleaved(name, value):
            writes.append(name)  # noqa: B023
            if len(writes) == at:  # noqa: B023
                other.write_timings({2: there, 3: there}, OBJECTIVES, host="there", complete=4)  # noqa: B023
            set_user_attr(name, value)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(study, "set_user_attr", interleaved)
            store.write_timings({0: here, 1: here}, OBJECTIVES, host="here", complete=4)
        assert len(writes) == 3
        for read in (store, other):
            assert [record.costs["latency_ms"] for record in read.records()] == [here.ms] * 2 + [there.ms] * 2
            assert [read.complete_when_remeasured(host) for host in ("here", "there")] == [4, 4]
        assert [trial.values[1] for trial in tiny_study(url).trials] == [here.ms] * 2 + [there.ms] * 2


def test_timings_of_a_study_that_has_them_in_one_attribute_are_read(study):
    complete_trials(study, 3)
    older = {number: asdict(replace(TIMING, ms=0.75)) for number in ("0", "1")}
    study.set_user_attr("remeasured", {"complete": 3, "timings": older})
    store = TrialStore(study)
    store.write_timings({1: TIMING}, OBJECTIVES, host="here", complete=3)
    assert [record.costs["latency_ms"] for record in store.records()] == [0.75, TIMING.ms, 2.0]


@pytest.mark.slow
def test_a_resumed_trial_takes_the_row_of_the_paused_one(study):
    store = TrialStore(study)
    for state in (State.PAUSED, State.COMPLETE):
        trial = study.ask()
        own = store.begin(trial, {**ARCHITECTURE, "model": {"depth": trial.number}})
        own.write(**RUN, state=state, **({"metric": 0.5} if state == State.COMPLETE else {"stop": STOP}))
        study.tell(trial, *(([0.5, 0.25],) if state == State.COMPLETE else (None, TrialState.PRUNED)))
    assert store.history(OBJECTIVES).numbers.tolist() == [0, 1]
    store.resume(0)
    assert not store.history(OBJECTIVES).paused.any(), "it cannot be resumed twice"
    assert store.history(OBJECTIVES).epochs.tolist() == [1, 1], "its curve still informs decisions"
    trial = study.ask()
    own = store.begin(trial, {**ARCHITECTURE, "model": {"depth": 0}})
    assert (trial.number, own.record.number) == (2, 0), "it keeps its number"
    assert [(record.number, record.state) for record in store.earlier(0)] == [(0, "paused")]
    own.write(**{**RUN, "curve": [(1, 0.5), (2, 0.75)]})
    assert store.record(2) == store.record(0) == store.records()[0]
    assert store.history(OBJECTIVES).numbers.tolist() == [0, 1]
    assert store.history(OBJECTIVES).epochs.tolist() == [2, 1]


def test_baselines_are_computed_once_a_study(study):
    result = BaselineResult("5-gram", {"accuracy": 0.95}, {"accuracy": 0.85}, latency_ms=0.125, fit_s=0.5)
    assert TrialStore(study).baselines() == []
    assert TrialStore(study).baselines(lambda: [result]) == [result]
    assert TrialStore(study).baselines(lambda: pytest.fail("computed again")) == [result]
    assert TrialStore(study).baselines() == [result]


def test_the_reason_and_time_of_the_latest_end_of_a_run_are_kept(study, monkeypatch):
    assert TrialStore(study).run_end() is None
    for at, reason in ((5.0, "the time budget is used up"), (9.0, "every architecture has been tried")):
        monkeypatch.setattr("search.study.shared.time.time", lambda at=at: at)
        TrialStore(study).write_run_end(reason)
        assert TrialStore(study).run_end() == (reason, at)


def test_a_trial_that_two_workers_resumed_is_explained_by_the_start_that_counts(study):
    trial = study.ask()
    store, objectives = TrialStore(study), OBJECTIVES
    store.begin(trial, ARCHITECTURE).write(**RUN, state=State.PAUSED, stop=STOP)
    study.tell(trial, state=TrialState.PRUNED)
    other = TrialStore(study)
    for each in (store, other):  # before either has started it again
        each.resume(0)
    first, second = study.ask(), study.ask()
    for resumed, state in ((second, State.OVER_QUOTA), (first, State.PRUNED)):
        store.begin(resumed, ARCHITECTURE).write(**RUN, state=state, **({"stop": STOP} if resumed is first else {}))
        study.tell(resumed, state=TrialState.PRUNED)
    assert [store.number(number) for number in range(3)] == [0, 0, 0]
    records = TrialStore(study).all_records()
    lines = list(explain(0, records, TrialStore(study).earlier(0), objectives, []))
    assert lines[0] == "trial 0: pruned"
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("  before")] == [
        "paused at epoch 1: epoch 1: enough"
    ]


def test_an_interrupted_trial_keeps_its_tries_and_the_checkpoint_that_it_resumes(study):
    """Or a trial that kills its workers would be requeued for ever, and a paused one would lose its epochs."""
    store = TrialStore(study)
    paused = study.ask()
    store.begin(paused, ARCHITECTURE).write(**RUN, state=State.PAUSED, stop=STOP)
    study.tell(paused, state=TrialState.PRUNED)
    store.resume(0)
    for number in (1, 2):
        interrupted = study.ask()
        assert (interrupted.number, store.number(number)) == (number, 0)
        interrupted.set_user_attr("tries", 2)
        interrupted.set_user_attr("interrupted", True)
        study.tell(interrupted, state=TrialState.FAIL)
        store.requeue_interrupted()
        assert study.trials[-1].user_attrs["tries"] == 2
    study.ask()
    assert [record.state for record in store.earlier(0)] == ["failed", "failed", "paused"]


@pytest.mark.slow
def test_trials_that_other_workers_start_meanwhile_are_no_problem(study, monkeypatch):
    store, get_trials = TrialStore(study), study.get_trials
    other = optuna.load_study(study_name=study.study_name, storage=study._storage)

    def while_others_start_one(**options):
        found = get_trials(**options)
        other.ask()
        return found

    study.ask()
    monkeypatch.setattr(study, "get_trials", while_others_start_one)
    assert len(store.history(OBJECTIVES)) == 1
    assert list(store.all_records()) == [0, 1]


@pytest.mark.slow
def test_records_that_are_updated_are_those_that_are_read_anew(study):
    """After each of many random events, of trials that start, are paused, interrupted, resumed and measured again."""
    random, store, running, states = Random(0), TrialStore(study), [], set()
    for number in range(3):
        store.enqueue({"a": number})
    for _ in range(100):
        event = random.choice(["start", "start", "write", "complete", "pause", "interrupt", "resume", "measure"])
        if event == "start":
            running.append(store.begin(study.ask(), ARCHITECTURE))
        elif event == "resume":
            paused = [record.number for record in store.records() if record.state == State.PAUSED]
            for number in paused[:1]:
                store.resume(number)
        elif event == "measure":
            measured = [record.number for record in store.records() if record.timings]
            store.write_timings(dict.fromkeys(measured[:2], TIMING), OBJECTIVES, host="here", complete=1)
        elif running:
            own = running.pop(random.randrange(len(running)))
            own.write(**RUN, **({"stop": STOP, "state": State.PAUSED} if event == "pause" else {}))
            if event == "write":
                running.append(own)
            elif event == "complete":
                study.tell(own.number, [0.5, 0.25])
            elif event == "pause":
                study.tell(own.number, state=TrialState.PRUNED)
            else:
                study.tell(own.number, state=TrialState.FAIL)
                store.requeue_interrupted()
        anew = TrialStore(study)
        assert list(store.all_records().items()) == list(anew.all_records().items())
        states |= {str(record.state) for record in anew.all_records().values()}
        history = {record.number: record for record in store.history(OBJECTIVES).records()}
        assert history == {number: record for number, record in anew.all_records().items() if number in history}
        assert {record.number for record in anew.records()} <= set(history)
    assert {"replaced", "paused", "complete", "running"} <= states
