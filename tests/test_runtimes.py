"""Run-times: the same predictions in each, the fastest one counts, and what cannot be executed is refused or pruned."""

import pytest
import torch
from tiny_task import SOFTMAX as ARCHITECTURE
from tiny_task import FirstToken, run_trials, tiny_search, tiny_study
from torch._inductor import config as inductor_config

from search.costs import runtimes
from search.costs.latency import MeasuredLatency
from search.costs.measured import MeasuredCosts
from search.costs.meter import Latency, Meter
from search.costs.runtimes import RUNTIMES, NoRuntimeError, check_runtimes, in_runtimes
from search.programs.program import ExportError
from search.study.records import State
from search.study.store import TrialStore
from search.validate import validate_latency
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.tasks.translation import Translation

TASK = FirstToken()


class Known(Meter):
    """The latencies of the networks that it is asked for, in milliseconds, in their order."""

    def __init__(self, *ms, names=("eager", "onnxruntime")):
        super().__init__(batch=1, length=None)
        self.ms, self.runtimes = ms, names

    def measure_all(self, networks, tasks):
        return [Latency(ms, 0.0, 1, 8, 1) for ms, _ in zip(self.ms, networks, strict=True)]


@pytest.fixture
def instant(monkeypatch):
    """Run-times that need no compiler: the network itself, of which ``onnxruntime`` refuses the widths in the set."""
    refused = set()

    def prepare(network, architecture, task, threads):
        if architecture["model"]["width"] in refused:
            raise ExportError("no operator for it")
        return network

    monkeypatch.setattr(runtimes, "RUNTIMES", {**RUNTIMES, "onnxruntime": prepare})
    return refused


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's
@pytest.mark.parametrize("runtime", RUNTIMES)
@inductor_config.patch(cpp_cache_precompile_headers=False)  # it takes a minute, once on a machine
def test_a_network_predicts_the_same_in_every_run_time(runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = build(ARCHITECTURE, TASK).eval()
    before, batch = torch.get_num_threads(), TASK.sample(3)
    (executed,) = in_runtimes(network, ARCHITECTURE, TASK, [runtime], threads=2).values()
    assert torch.get_num_threads() == before
    with torch.inference_mode():
        torch.testing.assert_close(TASK.predict(executed, batch), network(batch), atol=1e-5, rtol=1e-4)


def test_the_fastest_run_time_counts(instant):
    costs = MeasuredCosts(TASK, Known(2.0, 0.5, 1.0, 3.0))
    wider = {**ARCHITECTURE, "model": {**ARCHITECTURE["model"], "width": 16}}
    first, second, again = costs.timings([ARCHITECTURE, wider, ARCHITECTURE])
    assert (first.ms, first.runtime, first.runtimes_ms) == (0.5, "onnxruntime", {"eager": 2.0, "onnxruntime": 0.5})
    assert (second.ms, second.runtime) == (1.0, "eager")
    assert again == first


def test_a_run_time_that_cannot_execute_a_network_is_left_out(instant):
    instant.add(8)
    (timing,) = MeasuredCosts(TASK, Known(2.0)).timings([ARCHITECTURE])
    assert (timing.ms, timing.runtimes_ms) == (2.0, {"eager": 2.0})


def test_a_trial_that_no_run_time_can_execute_is_pruned_with_the_reason_before_its_training(instant, tmp_path):
    instant.update({4, 8})
    study = tiny_study(f"sqlite:///{tmp_path}/studies.db")
    run_trials(study, tiny_search(meter=Known(names=("onnxruntime",))), 2)
    for record in TrialStore(study).records():
        assert (record.state, record.epochs) == (State.PRUNED, 0)
        assert "it runs in no run-time of latency.runtimes (onnxruntime: no operator for it)" in record.reason


def test_int8_layers_are_left_to_eager():
    quantized = {**ARCHITECTURE, "model": {**ARCHITECTURE["model"], "quantization": "int8"}}
    network = build(quantized, TASK).eval()
    with pytest.raises(NoRuntimeError, match="no kernels of this project's 8-bit layers"):
        in_runtimes(network, quantized, TASK, ["onnxruntime"])
    assert set(in_runtimes(network, quantized, TASK, ["eager", "onnxruntime"])) == {"eager"}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"runtimes": []}, "it must be a list of one or more of eager, compile, torch, onnxruntime, openvino"),
        ({"runtimes": ["tensorrt"]}, r"runtimes=\['tensorrt'\]: it must be a list of one or more of eager"),
        ({"mode": "decode", "runtimes": ["onnxruntime"]}, r"mode=decode: only the run-time eager can"),
    ],
)
def test_unknown_run_times_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        MeasuredLatency(**settings)


def test_a_run_time_that_is_not_installed_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(ConfigError, match=r"onnxruntime needs onnx: pip install 'paretoformer\[export\]'"):
        validate_latency(Known(), None, TASK)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(ConfigError, match=r"openvino needs openvino: pip install 'paretoformer\[export,openvino\]'"):
        check_runtimes(["openvino"], TASK)
    monkeypatch.setattr(runtimes.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="compile needs a C"):
        check_runtimes(["compile"], TASK)


def test_programs_are_for_classifiers():
    with pytest.raises(
        ConfigError, match=r"latency.runtimes: Translation cannot be exported yet: .*; eager and compile"
    ):
        check_runtimes(["eager", "torch"], Translation())
    check_runtimes(["eager", "compile"], Translation())
