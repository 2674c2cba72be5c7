"""Energy from counters, in a folder like that of Linux."""

import pytest

from search.costs.energy import millijoules, packages


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
