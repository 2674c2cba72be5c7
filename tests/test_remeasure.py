import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from tiny_task import OBJECTIVES, close_opened, run_trials, tiny_search, tiny_study

from search.costs.latency import FlopsLatency
from search.costs.meter import Latency
from search.costs.remeasure import remeasure
from search.study.records import State, Timing, front
from search.study.store import TrialStore

pytestmark = pytest.mark.slow


class Drifting(FlopsLatency):
    """Every other measurement of a single network takes twice as long; networks in turns are measured equally."""

    def __init__(self):
        super().__init__()
        self.measured = []

    def measure_all(self, networks, tasks):
        self.measured.append(len(networks))
        drift = 1.0 if len(networks) > 1 else 1.0 + len(self.measured) % 2
        return [Latency(drift * each.ms, 0.01, 1, 8, 1) for each in super().measure_all(networks, tasks)]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database with a study of eight complete trials."""
    file = tmp_path_factory.mktemp("studies") / "studies.db"
    run_trials(tiny_study(f"sqlite:///{file}"), tiny_search(meter=Drifting()), 8)
    close_opened()
    return file


@pytest.fixture
def study(database, tmp_path):
    """The store of a copy of the study, and its cost model."""
    copy = shutil.copy(database, tmp_path)
    return TrialStore(tiny_study(f"sqlite:///{copy}")), tiny_search(meter=Drifting()).cost_model


def test_the_front_is_measured_again_in_turns(study):
    store, costs = study
    before = {record.number: record for record in store.records()}
    assert remeasure(store, costs, OBJECTIVES) >= len(
        {each.costs["flops"] for each in front(before.values(), OBJECTIVES)}
    )
    exact = {number: record.costs["flops"] / 10 / 1e6 for number, record in before.items()}
    for record in front(store.records(), OBJECTIVES):
        assert math.isclose(record.costs["latency_ms"], exact[record.number])
        first, current = record.timings
        assert first.ms == before[record.number].costs["latency_ms"]
        assert (current.spread, current.host) == (0.01, costs.host)
        assert current.at >= first.at


def test_optuna_has_the_current_latencies_too(study):
    store, costs = study
    remeasure(store, costs, OBJECTIVES)
    url = store.study._storage._backend.engine.url.render_as_string()
    reopened = tiny_study(url)
    latencies = {trial.number: trial.values[1] for trial in reopened.trials}
    assert latencies == {record.number: record.costs["latency_ms"] for record in store.records()}
    assert any(len(record.timings) > 1 for record in store.records())
    assert {trial.number for trial in reopened.best_trials} == {
        each.number for each in front(store.records(), OBJECTIVES)
    }


def test_trials_of_the_same_network_keep_the_same_latency(study):
    store, costs = study
    remeasure(store, costs, OBJECTIVES)
    latencies = {}
    for record in store.records():
        if len(record.timings) > 1:
            latencies.setdefault(record.costs["flops"], set()).add(record.costs["latency_ms"])
    assert latencies
    assert all(len(each) == 1 for each in latencies.values())


def test_nothing_is_measured_again_until_another_trial_is_complete(study):
    store, costs = study
    assert remeasure(store, costs, OBJECTIVES) > 0
    assert remeasure(store, costs, OBJECTIVES) == 0


def test_timings_of_other_hosts_are_kept(study):
    store, costs = study
    before = store.records()
    assert remeasure(store, replace(costs, host="another"), OBJECTIVES) == 0
    assert store.records() == before


@pytest.mark.parametrize(
    ("ms", "host", "state", "depth", "again"),
    [
        pytest.param(1.4, "here", State.COMPLETE, 2, True, id="near the front"),
        pytest.param(1.6, "here", State.COMPLETE, 2, False, id="too slow to be on the front after a drift"),
        pytest.param(0.5, "here", State.PRUNED, 2, False, id="not complete"),
        pytest.param(1.0, "here", State.PRUNED, 1, True, id="of a network on the front"),
        pytest.param(1.0, "there", State.COMPLETE, 1, False, id="of a network on the front, on another host"),
    ],
)
def test_trials_near_the_front_and_of_the_same_networks_are_measured_again(ms, host, state, depth, again):
    timings = Timing(1.0, 0.0, "here", 1.0), Timing(ms, 0.0, host, 1.0)
    store = ended([(timings[0], State.COMPLETE, 1), (timings[1], state, depth)])
    assert remeasure(store, meter("here"), OBJECTIVES) == (2 if again and depth == 2 else 1)
    assert [record.costs["latency_ms"] for record in store.records()] == [2.0, 2.0 if again else ms]


def test_each_host_measures_its_own_trials_again():
    """Workers on several hosts end with the same number of complete trials."""
    store = ended([(Timing(1.0, 0.0, host, 1.0), State.COMPLETE, at) for at, host in enumerate(("here", "there"), 1)])
    for host, expected in (("here", [2.0, 1.0]), ("there", [2.0, 2.0])):
        assert [remeasure(store, meter(host), OBJECTIVES) for _ in range(2)] == [1, 0]
        assert [record.costs["latency_ms"] for record in store.records()] == expected


def ended(trials):
    """The store of a study with trials of the same metric, each given by its timing, state and depth."""
    store = TrialStore(optuna.create_study(directions=["maximize", "minimize"]))
    for timing, state, depth in trials:
        trial = store.study.ask()
        metric = {"metric": 0.9} if state == State.COMPLETE else {}
        own = store.begin(trial, {"pattern": ["a"], "model": {"depth": depth}, "attention": {"a": {}}})
        own.write(timings=(timing,), costs={"latency_ms": timing.ms}, state=state, **metric)
        told = {"values": [0.9, timing.ms]} if metric else {"state": optuna.trial.TrialState.PRUNED}
        store.study.tell(trial, **told)
    return store


def meter(host):
    """Of a host on which every network takes 2 ms."""
    return SimpleNamespace(host=host, timings=lambda given: [Timing(2.0, 0.0, host, 2.0) for _ in given])
