"""The commands that measure a study's networks under other loads and beside other processes."""

import numpy as np
import pytest
from tiny_task import TREE, measured_study, tiny_identity, tiny_study

from search.costs import disturbance, profiles
from search.costs.__main__ import main
from search.costs.disturbance import agreement
from search.costs.meter import Latency
from search.costs.profiles import Profile, profile_front
from search.costs.stored import random_networks
from search.study.storage import open_read_only
from search.study.stored import load_stored
from spaces.architecture import network_key
from spaces.dimensions import ConfigError
from spaces.space import Space


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    measured_study(url, 2)
    return url


def test_the_agreement_of_two_measurements():
    line = agreement("busy", np.array([1.1, 2.0, 4.0]), np.array([1.0, 2.0, 5.0]))
    assert " ".join(line.split()) == "busy Spearman 1.0000 median error 10.0% largest 20.0% bias +0.0%"
    assert "Spearman 0.5000" in agreement("busy", np.array([2.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0]))


def test_random_networks_are_different_and_the_same_every_time():
    networks = random_networks(Space(TREE), 3, option="--disturbed 3")
    assert len({network_key(network) for network in networks}) == 3
    assert networks == random_networks(Space(TREE), 3, option="--disturbed 3")
    with pytest.raises(ConfigError, match=r"--disturbed 10: .* draws from the space gave [0-9]+ different networks"):
        random_networks(Space(TREE), 10, option="--disturbed 10")


@pytest.mark.slow
def test_networks_are_measured_beside_other_processes(url, capsys, monkeypatch):
    monkeypatch.setattr(disturbance, "SETTLE_S", 0.1)
    assert main(["tiny", "--disturbed", "3", "--storage", url]) == 0
    printed = capsys.readouterr().out
    for text in ("3 networks of ", "\nquiet again ", "\nbusy ", " Spearman ", "measuring took "):
        assert text in printed


def test_the_front_is_measured_under_other_loads(url, capsys, monkeypatch):
    monkeypatch.setattr(profiles, "packages", list)
    assert main(["tiny", "--profiles", "--storage", url]) == 0
    printed = capsys.readouterr().out
    assert "The front under other loads" in printed
    assert "Energy is not shown" in printed, "there is a folder without counters"
    with open_read_only(url) as storage:
        table = profile_front(load_stored(storage, "tiny"))
    headers = [column.header for column in table.columns]
    assert headers[:3] == ["trial", "ms, batch 1", "per s, batch 1"]
    monkeypatch.setattr(profiles, "packages", lambda: ["counters"])
    monkeypatch.setattr(profiles, "millijoules", lambda use, counters: 12.345)
    with open_read_only(url) as storage:
        table_with_energy = profile_front(load_stored(storage, "tiny"))
    assert next(table_with_energy.columns[-2].cells) == "12.35"
    assert headers[-3:] == ["batch for 90%", "ms, training step of 32", "architecture"], "no column of decoding"


def test_the_sufficient_batch_is_the_smallest_one_near_the_highest_throughput():
    latencies = {batch: Latency(ms, 0.0, batch, 8, 1) for batch, ms in {1: 1.0, 4: 2.0, 16: 7.0, 64: 26.0}.items()}
    profile = Profile(latencies, latencies[1], None)
    assert profile.throughput == pytest.approx({1: 1000, 4: 2000, 16: 2286, 64: 2462}, rel=1e-3)
    assert profile.sufficient_batch == 16


def test_computed_latencies_and_an_empty_front_are_refused(tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 'other.db'}"
    identity = tiny_identity({"_target_": "search.costs.latency.FlopsLatency"})
    tiny_study(url, identity=identity).set_user_attr("ceilings", [1.0])
    for option in ("--profiles", "--disturbed"):
        assert main(["tiny", option, "--storage", url]) == 2
        assert "the latencies of this study were computed, not measured" in capsys.readouterr().err
