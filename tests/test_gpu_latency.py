"""Latencies on a GPU; without one, tensors without data and a machine whose times are known stand in for it."""

import pytest
import torch
from test_latency import FakeMachine, Timed, meter
from tiny_task import TREE, FirstToken

from search.costs import gpu
from search.costs.gpu import Gpu, on_device
from search.costs.hardware import hardware_name
from search.costs.latency import MeasuredLatency
from search.costs.runtimes import NoRuntimeError
from search.validate import validate_latency
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.space import Space

TASK = FirstToken(length=8)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(
    ("settings", "gpus", "message"),
    [
        ({"device": "gpu"}, 1, "device='gpu': it must be cpu, cuda, or one of several GPUs such as cuda:1"),
        ({"device": "cuda:x"}, 1, "device='cuda:x': it must be cpu, cuda"),
        ({"device": "cuda"}, 0, "device='cuda': PyTorch finds no CUDA device; device=cpu times on the CPU"),
        ({"device": "cuda:2"}, 2, "device='cuda:2': there is no such GPU; there are cuda:0, cuda:1"),
        ({"graph": True}, 1, "graph=true: only a GPU has CUDA graphs; device must be cuda"),
        ({"device": "cuda", "runtimes": ["compile"]}, 1, "device=cuda: only the run-time eager is timed on a GPU"),
        ({"device": "cuda", "graph": True, "mode": "train_step"}, 1, "graph=true: a step of training is not captured"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(settings, gpus, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        MeasuredLatency(**settings)


class OtherDevice(FakeMachine):
    """Replaces what is called, and tells times of its own."""

    device = "meta"

    def __init__(self):
        super().__init__()
        self.prepared_uses = 0

    def prepared(self, use):
        self.prepared_uses += 1

        def captured():
            use()
            return "captured"

        return captured

    def timed(self, use):
        assert use() == "captured"
        return 0.004, 0.004


def test_networks_and_inputs_are_moved_and_the_machine_prepares_and_times():
    machine = OtherDevice()
    network = Timed(machine, 9.0)
    latency = meter(machine).measure(network, TASK)
    assert {inputs.device.type for _, inputs, *_ in network.log} == {"meta"}
    assert (machine.prepared_uses, latency.ms, latency.rounds_ms) == (1, 4.0, (4.0,) * 3)


def test_a_network_is_back_on_the_cpu_after_an_error(monkeypatch):
    network, moves = build(next(Space(TREE).largest()), TASK), []
    monkeypatch.setattr(network, "to", moves.append)
    with pytest.raises(RuntimeError, match="out of memory"), on_device(network, "cuda:1"):
        raise RuntimeError("out of memory")
    assert moves == ["cuda:1", "cpu"]


def test_a_network_that_is_elsewhere_is_refused():
    with torch.device("meta"):
        network = build(next(Space(TREE).largest()), TASK)
    with pytest.raises(ValueError, match="a network on meta: it must be on the CPU"):
        meter(FakeMachine()).measure(network, TASK)


def test_the_hardware_is_that_of_the_gpu_and_of_the_processor_that_launches_kernels(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", {"cuda:0": "A", "cuda:1": "B"}.get)
    names = [hardware_name(device) for device in ("cpu", "cuda:0", "cuda:1")]
    assert len(set(names)) == 3
    assert names[2].startswith("B, ")


def test_kernels_for_cpus_are_not_timed_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A")
    on_gpu = meter(OtherDevice())
    validate_latency(on_gpu, Space(TREE), TASK)
    quantized = Space({**TREE, "model": {**TREE["model"], "quantization": {"choice": ["none", "int8"]}}})
    validate_latency(meter(FakeMachine()), quantized, TASK)
    with pytest.raises(ConfigError, match="quantization=int8: its kernels are for CPUs, and latency"):
        validate_latency(on_gpu, quantized, TASK)


class Cuda:
    """Stands in for ``torch.cuda``: what was called, in order; time passes in the kernels alone."""

    def __init__(self, monkeypatch, *, fails=False):
        self.calls, self.now, self.fails = [], 0.0, fails
        for name in ("Event", "CUDAGraph", "Stream", "stream", "graph", "device", "synchronize"):
            monkeypatch.setattr(gpu.torch.cuda, name, getattr(self, name))

    def Event(self, **_):  # noqa: N802
        return Event(self)

    def CUDAGraph(self):  # noqa: N802
        return Graph(self)

    def Stream(self, _):  # noqa: N802
        return self

    def stream(self, _):
        return self

    device = stream

    def graph(self, _):
        self.calls.append("capture")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return self

    def synchronize(self, _):
        self.calls.append("synchronize")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Event:
    def __init__(self, cuda):
        self.cuda = cuda

    def record(self):
        self.at = self.cuda.now

    def synchronize(self):
        self.cuda.calls.append("wait")

    def elapsed_time(self, end):
        return end.at - self.at


class Graph:
    def __init__(self, cuda):
        self.cuda = cuda

    def replay(self):
        self.cuda.calls.append("replay")
        self.cuda.now += 3.0


class Overwritten:
    def __init__(self, cuda):
        self.cuda = cuda

    def zero_(self):
        self.cuda.calls.append("overwrite")
        self.cuda.now += 100.0


def graph_on(cuda):
    machine = Gpu("cpu", graph=False)  # its tensors are on the CPU
    machine.graph, machine._overwritten = True, Overwritten(cuda)
    return machine


def test_a_graph_is_captured_after_a_warm_up_and_timed_by_events_without_the_overwriting_of_the_cache(monkeypatch):
    cuda = Cuda(monkeypatch)
    machine = graph_on(cuda)
    replay = machine.prepared(lambda: cuda.calls.append("call"))
    assert cuda.calls == ["call"] * gpu.CAPTURE_WARMUP + ["synchronize", "capture", "call"]
    cuda.calls.clear()
    assert machine.timed(replay) == pytest.approx((0.003, 0.003))
    assert cuda.calls == ["overwrite", "replay", "wait"]


def test_what_cannot_be_captured_has_no_latency_and_the_reason_is_told(monkeypatch):
    cuda = Cuda(monkeypatch, fails=True)
    with pytest.raises(
        NoRuntimeError, match=r"it cannot be captured as a CUDA graph: operation not permitted when .*g$"
    ):
        graph_on(cuda).prepared(lambda: None)


def test_calls_from_python_are_timed_until_the_gpu_is_done(monkeypatch):
    cuda = Cuda(monkeypatch)
    machine = Gpu("cpu")
    assert machine.prepared(print) is print
    wall, cpu = machine.timed(lambda: cuda.calls.append("call"))
    assert wall > 0
    assert cpu > 0
    assert cuda.calls == ["synchronize"] * 2 + ["call"] + ["synchronize"] * 2


@needs_gpu
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("mode", ["forward", "train_step"])
def test_networks_are_measured_on_a_gpu(graph, mode):
    if graph and mode == "train_step":
        pytest.skip("not captured")
    networks = [build(architecture, TASK) for architecture in Space(TREE).corners()]
    latencies = MeasuredLatency(device="cuda", graph=graph, mode=mode).measure_all(networks, [TASK] * len(networks))
    assert all(0.001 < latency.ms < 100 for latency in latencies)
    assert {parameter.device.type for network in networks for parameter in network.parameters()} == {"cpu"}
