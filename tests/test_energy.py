"""Energy from counters, in a folder like that of Linux."""

from itertools import count

import pytest
from tiny_task import SOFTMAX, TREE, FirstToken

from search.costs.energy import millijoules, packages
from search.costs.latency import FlopsLatency
from search.costs.measured import MeasuredCosts, largest_costs
from spaces.dimensions import ConfigError
from spaces.space import Space


@pytest.fixture
def powercap(tmp_path):
    """Two packages, of which one has a part, and one whose counter cannot be read."""
    for name, microjoules in (
        ("intel-rapl:0", 1000),
        ("intel-rapl:0:0", 7),
        ("intel-rapl:1", 900),
        ("intel-rapl:2", None),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
        if microjoules is not None:
            (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    return tmp_path


def spend(powercap, **microjoules):
    for name, value in microjoules.items():
        (powercap / f"intel-rapl:{name[-1]}" / "energy_uj").write_text(f"{value}\n")


def test_the_energy_is_that_of_all_packages_and_a_counter_that_begins_again_is_continued(powercap):
    found = packages(powercap)
    assert [each.name for each in found] == ["intel-rapl:0", "intel-rapl:1"]
    spent = millijoules(lambda: spend(powercap, p0=3500, p1=400), found, seconds=0.0)
    assert spent == pytest.approx(((3500 - 1000) + (400 + 1000 - 900)) / 1e3)


def test_the_energy_is_the_mean_over_the_calls(powercap):
    calls = []

    def use():
        calls.append(1)
        spend(powercap, p0=1000 + 50 * len(calls))

    assert millijoules(use, packages(powercap), seconds=0.01) == pytest.approx(0.05)
    assert len(calls) > 1


def test_without_counters_there_are_no_packages(tmp_path):
    assert packages(tmp_path / "nothing") == []


@pytest.fixture
def spending(powercap, monkeypatch):
    """The counters of this machine: each reading is 2,000 microjoules, 2 mJ, above the one before."""
    readings = count(step=2000)
    monkeypatch.setattr("search.costs.energy.POWERCAP", powercap)
    monkeypatch.setattr("search.costs.energy._microjoules", lambda folder: next(readings))
    monkeypatch.setattr(millijoules, "__kwdefaults__", {"seconds": 0.0})


def measured_energy():
    return MeasuredCosts(FirstToken(), FlopsLatency(), also={"energy_mj"})


def test_energy_is_a_cost_of_an_architecture_and_of_the_largest_ones(spending):
    model = measured_energy()
    assert model.costs(SOFTMAX).counted["energy_mj"] == pytest.approx(2 * 4.0)  # of two packages, 4 mJ each
    assert "parameters" in model.costs(SOFTMAX).counted
    assert "energy_mj" not in model.counted(SOFTMAX), "candidates are not measured"
    assert largest_costs(Space(TREE), model, ["energy_mj"]) == [pytest.approx(8.0)]
    assert "energy_mj" not in MeasuredCosts(FirstToken(), FlopsLatency()).costs(SOFTMAX).counted


def test_energy_without_counters_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("search.costs.energy.POWERCAP", tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"energy_mj: there are no energy counters \(RAPL\) in .*nothing that this"):
        measured_energy()
