"""Run-times: the same predictions in each, the fastest one counts, and what cannot be executed is refused or pruned."""

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tiny_task import SOFTMAX as ARCHITECTURE
from tiny_task import TREE, FirstToken, run_trials, tiny_search, tiny_study
from torch import nn
from torch._inductor import config as inductor_config

from search.confirm.training import Setting, train
from search.costs import runtimes
from search.costs.latency import MeasuredLatency
from search.costs.measured import MeasuredCosts
from search.costs.meter import Latency, Meter
from search.costs.runtimes import RUNTIMES, NoRuntimeError, check_runtimes, in_runtimes
from search.programs import program
from search.programs.interface import Interface
from search.programs.program import Exporter, ExportError
from search.study.records import State
from search.study.store import TrialStore
from search.training.evaluation import EVAL_BATCH_FACTOR
from search.training.fit import CPU
from search.training.weights import read_weights
from search.validate import validate_latency
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.evaluation import BATCHES
from spaces.models.quantization import BY_PROGRAM as INT8
from spaces.space import Space
from spaces.tasks.multitask import Multitask
from spaces.tasks.translation import Translation
from spaces.tasks.tts import Tts

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

    def prepare(built):
        if built.architecture["model"]["width"] in refused:
            raise ExportError("no operator for it")
        return built.network

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


def quantized(quantization):
    return {**ARCHITECTURE, "model": {**ARCHITECTURE["model"], "quantization": quantization}}


@pytest.mark.parametrize(
    ("quantization", "only", "other"),
    [("int8", "eager", "torch"), ("bf16", "eager", "torch"), (INT8, "onnxruntime", "eager")],
)
def test_8_bit_integers_are_executed_by_one_run_time_alone(instant, quantization, only, other):
    architecture = quantized(quantization)
    network = build(architecture, TASK).eval()
    with pytest.raises(NoRuntimeError, match=f"{other}: it has no kernels for model.quantization={quantization}"):
        in_runtimes(network, architecture, TASK, [other])
    assert set(in_runtimes(network, architecture, TASK, ["eager", "torch", "onnxruntime"])) == {only}


def test_a_quantization_whose_run_time_is_not_measured_is_refused():
    tree = {**TREE, "model": {**TREE["model"], "quantization": {"choice": ["none", INT8]}}}
    with pytest.raises(ConfigError, match=f"model.quantization={INT8} is executed by the run-time onnxruntime alone"):
        validate_latency(Known(names=("eager",)), Space(tree), TASK)
    validate_latency(Known(), Space(tree), TASK)


def trained(folder, quantization=INT8):
    """The record of a trial, whose weights are kept in a folder."""
    tree = {**TREE, "model": {**TREE["model"], "quantization": quantization}}
    study = tiny_study(f"sqlite:///{folder}/studies.db")
    run_trials(study, tiny_search(tree, checkpoints=folder), 1)
    (record,) = TrialStore(study).records()
    return record


def test_the_metrics_of_a_quantized_trial_are_those_of_the_run_time(tmp_path, monkeypatch):
    class FirstClass(nn.Module):
        def forward(self, batch):
            return torch.eye(3)[0].expand(len(batch.inputs), -1)

    monkeypatch.setattr(runtimes, "RUNTIMES", {**RUNTIMES, "onnxruntime": lambda built: FirstClass()})
    record = trained(tmp_path)
    shares = {split: (TASK.data(split).labels == 0).float().mean().item() for split in ("validation", "test")}
    assert record.metric == pytest.approx(shares["validation"]) != record.curve[-1][1]
    assert record.validation_metrics["accuracy"] == record.metric
    assert record.test_metrics["accuracy"] == pytest.approx(shares["test"])
    assert train(dict(record.architecture), Setting(TASK, CPU), seed=1).test == pytest.approx(record.test_metrics)


def test_a_quantized_program_may_differ_but_has_finite_logits(tmp_path, monkeypatch):
    network = nn.Linear(2, 3)
    network.forward = lambda batch: torch.ones(len(batch.inputs), 3)
    exporter = Exporter(network, Interface(4, 1, False, None, 2))
    monkeypatch.setattr(Exporter, "_save_int8", lambda exporter, free, path: path.touch())
    for value, refused in ((9.0, False), (math.nan, True), (math.inf, True)):
        run = lambda feed, value=value: np.full((len(feed["inputs"]), 3), value)  # noqa: E731
        monkeypatch.setattr(program, "open_onnx", lambda path, threads, run=run: run)
        with pytest.raises(ExportError, match="its logits differ by inf") if refused else nullcontext():
            assert exporter.write_int8(tmp_path / "program").error == 8.0


@pytest.mark.slow
def test_the_accuracy_of_a_quantized_trial_is_what_onnxruntime_itself_predicts(tmp_path):
    record = trained(tmp_path)
    architecture = dict(record.architecture)
    network = build(architecture, TASK).eval()
    network.load_state_dict(read_weights(Path(record.weights), architecture))
    Exporter(network, Interface.of(architecture, TASK)).write_onnx(tmp_path / "exact.onnx")
    options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    quantize_dynamic(tmp_path / "exact.onnx", tmp_path / "int8.onnx", **options)
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    for split, metrics in (("validation", record.validation_metrics), ("test", record.test_metrics)):
        data, found = TASK.data(split), []
        size = min(EVAL_BATCH_FACTOR * TASK.batch_size, -(-data.size // (BATCHES if split == "test" else 1)))
        for batch in TASK.batches(split, size):  # the range of the activations is that of a batch
            (logits,) = session.run(None, {"inputs": batch.inputs.numpy()})
            assert not np.array_equal(logits, network(batch).detach().numpy())
            found.append(logits)
        right = np.concatenate(found).argmax(-1) == data.labels.numpy()
        assert metrics["accuracy"] == pytest.approx(right.mean())


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
        validate_latency(Known(), Space(TREE), TASK)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(ConfigError, match=r"openvino needs openvino: pip install 'paretoformer\[export,openvino\]'"):
        check_runtimes(["openvino"], TASK)
    monkeypatch.setattr(runtimes.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="compile needs a C"):
        check_runtimes(["compile"], TASK)


def test_programs_are_for_classes_and_texts():
    with pytest.raises(ConfigError, match=r"latency.runtimes: Tts cannot be exported yet: .*; eager and compile"):
        check_runtimes(["eager", "torch"], Tts())
    check_runtimes(["eager", "torch"], Translation())
    with pytest.raises(ConfigError, match="it has several tasks"):
        check_runtimes(["eager", "torch"], Multitask(tasks={"a": FirstToken(), "b": FirstToken()}))
    check_runtimes(["eager", "compile"], Tts())
