"""A study's latencies are of one kind of machine."""

import pytest
import torch
from tiny_task import tiny_study

from search.costs import hardware
from search.costs.hardware import check_hardware, hardware_name
from search.costs.latency import FlopsLatency, MeasuredLatency
from search.study.store import TrialStore
from spaces.dimensions import ConfigError

CPUINFO = (
    "processor\t: {core}\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\nstepping\t: 1\nflags\t\t: a: b\n\n"
)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets the name of the processor."""

    def become(name):
        path = tmp_path / "cpuinfo"
        path.write_text("".join(CPUINFO.format(core=core, name=name) for core in range(2)))
        monkeypatch.setattr(hardware, "CPUINFO", path)
        monkeypatch.setattr(hardware, "cores", lambda: 2)

    return become


def test_the_name_tells_processor_cores_and_pytorch(machine):
    machine("Fast CPU")
    major, minor = torch.__version__.split(".")[:2]
    assert hardware_name() == f"Fast CPU 25/17/1, 2 cores, torch {major}.{minor}"


def test_a_worker_on_another_machine_is_refused_unless_it_is_named_alike(machine, tmp_path):
    store = TrialStore(tiny_study(f"sqlite:///{tmp_path}/studies.db"))
    machine("Fast CPU")
    check_hardware("auto", MeasuredLatency().hardware, store.hardware)
    check_hardware("auto", MeasuredLatency().hardware, store.hardware)
    machine("Slow CPU")
    with pytest.raises(
        ConfigError, match=r"measured on 'Fast CPU 25.*', this worker has 'Slow CPU.*hardware='Fast CPU"
    ):
        check_hardware("auto", MeasuredLatency().hardware, store.hardware)
    check_hardware(store.hardware(str), MeasuredLatency().hardware, store.hardware)
    check_hardware("auto", FlopsLatency().hardware, store.hardware)  # computed ones are the same everywhere


def test_a_given_name_is_that_of_the_study(machine, tmp_path):
    store = TrialStore(tiny_study(f"sqlite:///{tmp_path}/studies.db"))
    check_hardware("cluster", MeasuredLatency().hardware, store.hardware)
    with pytest.raises(ConfigError, match="measured on 'cluster'"):
        check_hardware("auto", MeasuredLatency().hardware, store.hardware)
