import math

import pytest
from tiny_task import OBJECTIVES, small_search, small_study

from search.costs.latency import FlopsLatency, Latency
from search.costs.remeasure import retime
from search.study.records import front
from search.study.trials import records
from search.worker import work


class Drifting(FlopsLatency):
    """Twice as slow at every other measurement of one network; side by side, all as slow as each other."""

    def __init__(self):
        super().__init__()
        self.measured = []

    def measure_all(self, networks, task):
        self.measured.append(len(networks))
        drift = 1.0 if len(networks) > 1 else 1.0 + len(self.measured) % 2
        return [Latency(drift * each.ms, 0.01, 1, 8, 1) for each in super().measure_all(networks, task)]


@pytest.fixture
def done(tmp_path):
    study, meter = small_study(f"sqlite:///{tmp_path / 'studies.db'}"), Drifting()
    search = small_search()
    object.__setattr__(search, "meter", meter)
    from tiny_task import Silence

    work(study, search, 8, Silence(), lambda trial: None, grace_s=60)
    return study, search


def test_the_front_is_compared_side_by_side(done):
    study, search = done
    before = {record.number: record for record in records(study)}
    assert retime(study, search) >= len({record.costs["flops"] for record in front(before.values(), OBJECTIVES)})
    exact = {number: record.costs["flops"] / 10 / 1e6 for number, record in before.items()}
    for record in front(records(study), OBJECTIVES):
        assert math.isclose(record.costs["latency_ms"], exact[record.number])
        assert record.details["first_latency_ms"] == before[record.number].costs["latency_ms"]
        assert record.details["latency_spread"] == 0.01


def test_trials_of_the_same_network_keep_the_same_latency(done):
    study, search = done
    retime(study, search)
    latencies = {}
    for record in records(study):
        if "first_latency_ms" in record.details:
            latencies.setdefault(record.costs["flops"], set()).add(record.costs["latency_ms"])
    assert all(len(each) == 1 for each in latencies.values())


def test_nothing_is_measured_again_while_nothing_new_has_ended(done):
    study, search = done
    assert retime(study, search) > 0
    assert retime(study, search) == 0


def test_what_other_hosts_measured_is_left_alone(done, monkeypatch):
    study, search = done
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    before = records(study)
    retime(study, search)
    assert records(study) == before
