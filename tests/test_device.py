"""Training on any device and in any precision, tested without a GPU.

Tensors on the meta device have a shape but no data. A mechanism that creates a tensor on the CPU in its forward pass
would mix two devices there, as it would on a GPU.
"""

import functools
import inspect
import pkgutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.fabric.utilities import move_data_to_device
from tiny_task import TREE, FirstToken
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search.study.identity import identity_of
from search.training.device import Device, select_device
from search.training.fit import LightningFit
from search.training.loss import TrainingLoss
from search.training.settings import TrainSettings
from spaces.augmentation import augmentations
from spaces.augmentation.mixing import mixup
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.space import Space
from spaces.tasks import Batch, Task, TaskSpec
from spaces.tasks.asr import Asr
from spaces.tasks.digits import Digits
from spaces.tasks.multitask import Multitask
from spaces.tasks.patches import Patches
from spaces.tasks.recall import Recall
from spaces.tasks.speech import Speech
from spaces.tasks.translation import Translation

ATTENTION = Path(__file__).parents[1] / "conf" / "attention"
MECHANISMS = sorted(path.stem for path in ATTENTION.glob("*.yaml"))
LENGTH, WIDTH = 24, 8
SETTINGS = TrainSettings(epochs=2, batch_size=16, lr=0.03)


@pytest.fixture
def available(monkeypatch):
    """Sets which devices PyTorch finds."""

    def found(*, gpus=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return found


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [
        ("auto", {}, ("cpu", 1)),
        ("auto", {"mps": True}, ("mps", 1)),
        ("auto", {"gpus": 2}, ("cuda", 1)),
        ("cpu", {"gpus": 2}, ("cpu", 1)),
        ("mps", {"mps": True}, ("mps", 1)),
        ("cuda", {"gpus": 1}, ("cuda", 1)),
        ("cuda:1", {"gpus": 2}, ("cuda", [1])),
    ],
)
def test_the_device_is_the_named_one_or_the_best_that_is_available(name, there, expected, available):
    available(**there)
    device = select_device(name)
    assert (device.accelerator, device.devices) == expected


@pytest.mark.parametrize(
    ("settings", "there", "message"),
    [
        ({"name": "cuda"}, {}, "device='cuda': PyTorch finds no CUDA device; use device=auto or device=cpu"),
        ({"name": "cuda:0"}, {"mps": True}, "device='cuda:0': PyTorch finds no CUDA device"),
        ({"name": "cuda:2"}, {"gpus": 2}, "device='cuda:2': there is no such GPU; there are cuda:0, cuda:1"),
        ({"name": "mps"}, {"gpus": 2}, "device='mps': PyTorch finds no MPS device"),
        ({"precision": "16-mixed"}, {}, "precision='16-mixed': it needs a GPU; on the CPU use bf16-mixed"),
    ],
)
def test_what_is_not_available_is_refused(settings, there, message, available):
    available(**there)
    with pytest.raises(ConfigError, match=message):
        select_device(**settings)


def test_workers_may_differ_in_the_device_but_not_in_the_precision():
    config = {"seed": 0, "device": "cpu", "compile": False, "precision": "32-true", "task": {}}
    expected = {"seed": 0, "task": {}}
    assert identity_of(config) == identity_of({**config, "device": "cuda:1", "compile": True}) == expected
    assert identity_of({**config, "precision": "bf16-mixed"}) != identity_of(config)


def train(device, *, checkpoint=None, save=None, settings=SETTINGS):
    """The fit, its network, its curve and its metrics on validation."""
    task = FirstToken()
    network = build(list(Space(TREE).corners())[-1], task)
    with LightningFit(network, task, settings, seed=0, device=device, checkpoint=checkpoint) as training:
        curve = []
        for epoch, metric in training:
            curve.append((epoch, metric))
            if save and epoch == 1:
                torch.save(training.state_dict(), save)
        metrics = training.evaluate("validation")
    return network, curve, metrics


def test_a_training_in_bf16_learns_and_is_resumed_exactly(tmp_path):
    device = select_device("cpu", precision="bf16-mixed")
    network, curve, metrics = train(device, save=tmp_path / "1.pt")
    resumed, rest, _ = train(device, checkpoint=tmp_path / "1.pt")
    assert rest == curve[1:]
    assert metrics["accuracy"] == curve[-1][1]
    full, *_ = train(Device())
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, full.state_dict()[name], atol=0.05, rtol=0.2)
    assert any(not torch.equal(weights, full.state_dict()[name]) for name, weights in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # of PyTorch 2.13
def test_a_compiled_training_gives_the_same_and_can_go_on_uncompiled(tmp_path, monkeypatch):
    # It traces and differentiates, but generates no code, whose compilation takes a minute; see test_runtimes.py.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    settings = replace(SETTINGS, ema=0.9, keep_best=True)
    network, *_ = train(Device(), settings=settings)
    compiled, compiled_curve, metrics = train(Device(compile=True), settings=settings, save=tmp_path / "1.pt")
    assert list(compiled.state_dict()) == list(network.state_dict())
    for name, weights in compiled.state_dict().items():
        torch.testing.assert_close(weights, network.state_dict()[name], atol=1e-3, rtol=1e-2)
    assert metrics["accuracy"] == max(metric for _, metric in compiled_curve)
    resumed, *_ = train(Device(), settings=settings, checkpoint=tmp_path / "1.pt")
    for name, weights in resumed.state_dict().items():
        torch.testing.assert_close(weights, network.state_dict()[name], atol=1e-3, rtol=1e-2)


def test_waiting_for_the_caller_does_not_count_as_training():
    now = [1000.0]

    class OneSecondABatch(FirstToken):
        def loss(self, logits, batch):
            now[0] += 1
            return super().loss(logits, batch)

    task = OneSecondABatch()
    network = build(list(Space(TREE).corners())[-1], task)
    fit, seconds = LightningFit(network, task, SETTINGS, seed=0), []
    fit._clock = lambda: now[0]
    with fit as training:
        for _ in training:
            seconds.append(training.cpu_s)
            now[0] += 100
    assert seconds == [4, 8]
    assert LightningFit(network, task, SETTINGS, seed=0)._clock is time.thread_time
    assert LightningFit(network, task, SETTINGS, seed=0, device=Device(name="cuda"))._clock is time.perf_counter


def test_a_checkpoint_of_version_0_2_is_resumed(tmp_path):
    _, curve, _ = train(Device(), save=tmp_path / "1.pt")
    saved = torch.load(tmp_path / "1.pt")
    torch.save({name: saved[name] for name in ("epoch", "network", "optimizer")}, tmp_path / "old.pt")
    _, rest, _ = train(Device(), checkpoint=tmp_path / "old.pt")
    assert rest == curve[1:]


def test_a_batch_is_moved_with_all_its_parts():
    ids = torch.zeros(2, 3, dtype=torch.int64)
    batch = Batch(ids, None, ids, ids, (Batch(ids, ids > 0, ids), None))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    assert isinstance(moved.subtasks[0], Batch)
    assert (moved.padding, moved.subtasks[1], moved.subtasks[0].subtasks) == (None, None, ())
    tensors = [leaf for leaf in tree_leaves(moved) if leaf is not None]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 6


class OneDevice(TorchDispatchMode):
    """Fails where an operation has tensors of two devices; a CPU scalar may be combined with any device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        assert len(devices) < 2, f"{function} of tensors on {devices}"
        return function(*args, **(kwargs or {}))


def test_an_operation_on_two_devices_is_found():
    with pytest.raises(AssertionError, match="of tensors on"), OneDevice():
        torch.where(torch.ones(3, device="meta") > 0, 1.0, torch.arange(3.0))


class Shapes(Task):
    """A task without data."""

    chance = 0.0

    def __init__(self, **spec):
        self.spec = TaskSpec(**spec)

    def examples(self, split):
        raise AssertionError("there are none")


SPECS = {
    "encoder.Encoder": {"classes": 3, "per_token": False},
    "encoder.Encoder causal": {"classes": 7, "per_token": True, "causal": True},
    "decoder.Decoder": {"classes": 7, "per_token": True, "causal": True},
    "seq2seq.Seq2Seq": {"classes": 7, "per_token": True, "answer_length": 20},
}


@functools.cache
def network_of(mechanism, model, **settings):
    """A network with the mechanism in all its roles, or None if it cannot have one of them."""
    node = yaml.safe_load((ATTENTION / f"{mechanism}.yaml").read_text())[mechanism]
    if "rope" in inspect.signature(pkgutil.resolve_name(node["_target_"])).parameters:
        node["rope"] = True
    sizes = {"_target_": f"spaces.models.{model.split()[0]}", "depth": 1, "width": WIDTH, "heads": 2}
    space = Space({"model": {**sizes, **settings}, "attention": {mechanism: node}, "train": {"epochs": 1}})
    try:
        return build(next(space.corners()), Shapes(length=LENGTH, vocabulary=7, **SPECS[model]))
    except ConfigError:
        return None


def batch_of(model, *, padded):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(7, (2, LENGTH), generator=generator)
    padding = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [15]])
    return Batch(ids, padding if padded else None, ids, ids[:, :9] if model == "seq2seq.Seq2Seq" else None)


def test_every_mechanism_is_in_some_network():
    networks = {(mechanism, model): network_of(mechanism, model) for mechanism in MECHANISMS for model in SPECS}
    built = [pair for pair, network in networks.items() if network is not None]
    assert {mechanism for mechanism, _ in built} == set(MECHANISMS)
    assert {model for _, model in built} == set(SPECS)


ENCODER, *OTHERS = SPECS


@pytest.mark.parametrize("models", [[ENCODER], pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["encoder", "others"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_network_creates_no_tensor_on_another_device(mechanism, models):
    for model in models:
        if network_of(mechanism, model) is None:
            continue
        network = network_of(mechanism, model, dropout=0.1, positions="sinusoidal").to("meta")
        for padded in (False, True):
            batch = move_data_to_device(batch_of(model, padded=padded), torch.device("meta"))
            with OneDevice():
                output = network(batch)
                output.sum().backward()
                if model == "decoder.Decoder":
                    network.generate(batch.inputs[:, :2], 2)
                if model == "seq2seq.Seq2Seq":
                    network.generate(batch, 2, ignore_eos=True)
            gradients = [weights.grad for weights in network.parameters() if weights.grad is not None]
            assert output.device.type == "meta", model
            assert {gradient.device.type for gradient in gradients} == {"meta"}, model


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_gradients_in_bf16_are_near_those_in_32_bits(mechanism):
    network, batch, results = network_of(mechanism, "encoder.Encoder"), batch_of("encoder.Encoder", padded=True), []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = network(batch).float().square().mean()
        loss.backward()
        results.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    full, half = results
    assert 0 < (full - half).norm() < 0.1 * full.norm()


def moved(task):
    """Eight training examples without data."""
    batch = next(iter(task.batches("train", 8)))
    return move_data_to_device(batch, torch.device("meta"))


def logits_of(task, batch):
    if task.subtasks:
        return tuple(map(logits_of, task.subtasks.values(), batch.subtasks))
    ids = batch.inputs if batch.decoder_input_ids is None else batch.decoder_input_ids
    shape = ids.shape[:2] if task.spec.per_token else ids.shape[:1]
    return torch.zeros(*shape, task.spec.classes, device=ids.device)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (Patches(), {"flip": 0.5, "shift": 2, "crop": 0.5, "erase": 0.5}),
        (Digits(), {"flip": 0.5, "shift": 2, "crop": 0.5, "erase": 0.5, "class_weights": "balanced"}),
        (Speech(), {"time_masks": 1, "band_masks": 1, "label_smoothing": 0.1}),
        (Asr(), {"time_masks": 1}),
        (Recall(), {"token_dropout": 0.1}),
        (Translation(), {}),
        (Multitask(tasks={"digits": Digits(), "patches": Patches()}), {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Task) else "",
)
def test_augmentation_and_loss_create_no_tensor_on_another_device(task, settings, monkeypatch):
    def ctc_loss(*tensors, **_):  # PyTorch has none on the meta device
        return torch.stack([tensor.sum() for tensor in tensors]).sum()

    monkeypatch.setattr(F, "ctc_loss", ctc_loss)
    settings = replace(SETTINGS, **settings)
    batch, loss = moved(task), TrainingLoss(task, settings).to("meta")
    with OneDevice():
        for augment in augmentations(settings, task):
            batch = augment(batch)
        if isinstance(task, (Digits, Patches)):
            batch, *_ = mixup(batch, 0.5)
        for each in (batch, batch._replace(padding=None)):
            assert loss(logits_of(task, each), each).device.type == "meta"
