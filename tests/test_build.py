from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from spaces.architecture import describe
from spaces.attention import Mechanism, Shape
from spaces.build import _shape, build, invalid_corners, task_of
from spaces.instantiate import instantiate
from spaces.models.trunk import ShortConvolution
from spaces.relative import in_tokens
from spaces.space import Space
from spaces.tasks import Batch, Task, TaskSpec

ENCODER_TAKES = (
    "width, feed_forward, dropout, activation, positions, front_end, "
    "ngrams, buckets, embedding_std, stride, embedding_dropout, pooling"
)


class Constant(Task):
    """Three classes, all of them 0."""

    def __init__(
        self, *, length: int = 31, per_token: bool = False, causal: bool = False, features: int | None = None
    ) -> None:
        tokens = {"vocabulary": 7} if features is None else {"features": features}
        self.spec = TaskSpec(length=length, classes=3, per_token=per_token, causal=causal, **tokens)
        self.chance = 1 / 3

    def examples(self, split) -> Batch:
        rows = {"train": 8, "validation": 4, "test": 4}[split]
        labels = torch.zeros(rows, self.spec.length, dtype=torch.long)
        inputs = labels if self.spec.features is None else torch.zeros(*labels.shape, self.spec.features)
        return Batch(inputs, None, labels if self.spec.per_token else labels[:, 0])


class Narrowing(Mechanism):
    """A mechanism that can be built and returns one feature too few."""

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        return x[..., 1:]


HERE = Narrowing.__module__
LINFORMER = {"_target_": "spaces.attention.linformer.LinformerAttention", "rank": {"choice": [16, 64]}}
LONGFORMER = {"_target_": "spaces.attention.longformer.LongformerAttention", "window": {"int": [1, 40]}}
SOFTMAX = {"_target_": "spaces.attention.softmax.SoftmaxAttention"}
MODEL = {"_target_": "spaces.models.encoder.Encoder", "depth": {"int": [1, 2]}, "width": 8, "heads": {"choice": [1, 2]}}


def space(model=MODEL, **attention):
    return Space({"attention": attention or {"softmax": SOFTMAX}, "model": model, "train": {"epochs": 1}})


@pytest.mark.parametrize("features", [None, 5])
def test_every_corner_that_fits_builds_and_runs(features):
    fitting = {"softmax": SOFTMAX, "linformer": {**LINFORMER, "rank": {"int": [1, 31]}}}
    task = Constant(per_token=True, features=features)
    assert invalid_corners(space(**fitting), task) == []
    for corner in space(**fitting).corners():
        logits = build(corner, task)(task.data("train").select(torch.arange(2)))
        assert logits.shape == (2, 31, 3), describe(corner)


@pytest.mark.parametrize(
    ("tree", "task", "expected"),
    [
        (
            {"linformer": LINFORMER, "longformer": LONGFORMER},
            Constant(),
            [
                "attention.linformer: rank=64: with length 31 it must be 1..31",
                "attention.longformer: window=40: with length 31",
            ],
        ),
        ({"linformer": {**LINFORMER, "rank": 4}}, Constant(causal=True), ["attention.linformer:"]),
        ({"linformer": {"_target_": LINFORMER["_target_"]}}, Constant(), ["attention.linformer.rank: missing"]),
        (
            {"linformer": {**LINFORMER, "rnak": 4}},
            Constant(),
            ["attention.linformer: LinformerAttention does not take 'rnak'; it takes rank"],
        ),
        ({"mine": {"_target_": "no.such.Thing"}}, Constant(), ["attention.mine: no 'no.such.Thing'"]),
        ({"mine": {"_target_": "fractions.Thing"}}, Constant(), ["attention.mine: no 'fractions.Thing'"]),
        ({"mine": {"_target_": "not a name"}}, Constant(), ["attention.mine: no 'not a name'"]),
        ({"narrow": {"_target_": f"{HERE}.Narrowing"}}, Constant(), ["narrow depth=2", "fails on an input (1, 31)"]),
    ],
)
def test_invalid_mechanisms_are_reported_with_their_place(tree, task, expected):
    found = invalid_corners(space(**tree), task)
    assert len(found) == len(set(found))
    for message in expected:
        assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": {"choice": [8, 9]}}, "model: width=9, heads=2: heads must divide width"),
        ({"heads": 0}, "model: heads=0: it must be a whole number from 1"),
        ({"width": 8.5}, "model: width=8.5: it must be a whole number from 1"),
        ({"dropout": 1.5}, "model: dropout=1.5: it must be at least 0 and below 1"),
        (
            {"feed_forwrad": 2},
            "model: Encoder does not take 'feed_forwrad'; it takes " + ENCODER_TAKES,
        ),
    ],
)
def test_an_invalid_model_is_reported_once(change, message):
    assert invalid_corners(
        space({**MODEL, **change}, softmax=SOFTMAX, linformer={**LINFORMER, "rank": 4}), Constant()
    ) == [message]


def test_build_is_reproducible_and_preserves_the_global_generator():
    architecture = next(space().corners())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (build(architecture, Constant(), seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_blocks_of_a_network_follow_the_pattern():
    tree = {"attention": {"softmax": SOFTMAX, "longformer": {**LONGFORMER, "window": 3}}, "train": {"epochs": 1}}
    hybrid = Space({**tree, "model": {**MODEL, "depth": 3}, "pattern": ["longformer", "longformer", "softmax"]})
    network = build(next(hybrid.corners()), Constant())
    names = [type(block.mechanism).__name__ for block in network.trunk.blocks]
    assert names == ["LongformerAttention", "LongformerAttention", "SoftmaxAttention"]


def test_instantiate_is_recursive():
    tasks = {name: {"_target_": f"{HERE}.Constant"} for name in ("one", "two")}
    node = {"_target_": "spaces.tasks.multitask.Multitask", "tasks": tasks}
    assert {type(task) for task in instantiate(Task, node, "task").subtasks.values()} == {Constant}


def batch(inputs, padding=None):
    return Batch(inputs, padding, labels=torch.empty(0))


IDS = torch.arange(18).reshape(2, 9) % 7, torch.full((2, 3), 5)
FRAMES = torch.arange(36.0).reshape(2, 9, 2) % 7, torch.full((2, 3, 2), torch.nan)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize(("features", "inputs", "behind"), [(None, *IDS), (2, *FRAMES)])
def test_encoder_outputs_are_independent_of_padding(per_token, features, inputs, behind):
    task = Constant(length=12, per_token=per_token, features=features)
    for corner in space(softmax=SOFTMAX, longformer={**LONGFORMER, "window": 3}).corners():
        network = build(corner, task).eval()
        padded = torch.cat([inputs, behind], dim=1)
        padding = torch.arange(12).expand(2, -1) >= 9
        alone, beside = network(batch(inputs)), network(batch(padded, padding))
        torch.testing.assert_close(beside[:, :9] if per_token else beside, alone)


@pytest.mark.parametrize("tokens", [{}, {"vocabulary": 7, "features": 5}])
def test_tokens_are_ids_or_frames(tokens):
    with pytest.raises(ValueError, match="one of the two"):
        TaskSpec(length=4, classes=2, per_token=False, **tokens)


def test_a_causal_encoder_is_independent_of_later_tokens():
    task = Constant(length=12, per_token=True, causal=True)
    network = build(next(space().corners()), task).eval()
    inputs = torch.arange(12)[None] % 7
    changed = inputs.clone()
    changed[:, 6:] = 1
    torch.testing.assert_close(network(batch(inputs))[:, :6], network(batch(changed))[:, :6])
    assert not torch.allclose(network(batch(inputs))[:, 6:], network(batch(changed))[:, 6:])


@pytest.mark.parametrize("causal", [False, True])
def test_short_convolution_equals_a_depthwise_conv1d_with_kernel_size_3(causal):
    shift = ShortConvolution(width=4, causal=causal)
    x = torch.randn(2, 7, 4)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (2, 0) if causal else (1, 1))
    slow = torch.nn.functional.conv1d(padded, shift.taps.T[:, None], shift.bias, groups=4).transpose(1, 2)
    torch.testing.assert_close(shift(x), x + slow)


@pytest.mark.parametrize(("role", "length", "causal"), [("", 8, True), ("decoder", 4, True), ("cross", 8, False)])
def test_cross_attention_is_never_causal_and_a_decoder_always_is(role, length, causal):
    spec = TaskSpec(length=8, vocabulary=3, classes=3, per_token=True, causal=True, answer_length=4)
    shape = _shape({"model": {"width": 4, "heads": 2}}, SimpleNamespace(spec=spec), role)
    assert shape == Shape(4, 2, length, causal)


class Cut(Constant):
    """Its length is a setting of its input."""

    def with_input(self, *, length: int | None = None) -> Task:
        if length is not None and length > self.spec.length:
            raise ValueError(f"length={length}: it must be at most {self.spec.length}")
        return Cut(length=length or self.spec.length)


def with_input(settings):
    softmax = {"_target_": "spaces.attention.softmax.SoftmaxAttention"}
    return Space({"attention": {"softmax": softmax}, "model": MODEL, "train": {"epochs": 1}, "input": settings})


def test_input_settings_change_the_task_of_an_architecture():
    searched, task = with_input({"length": {"choice": [8, 16]}}), Cut()
    assert invalid_corners(searched, task) == []
    assert {corner["input"]["length"] for corner in searched.corners()} == {8, 16}
    for corner in searched.corners():
        found = task_of(corner, task)
        assert found.spec.length == corner["input"]["length"]
        assert build(corner, task).trunk.positions.table.shape[0] == corner["input"]["length"]
        assert task_of(corner, task) is found, "kept with its data"


def test_an_input_of_named_branches_may_have_settings_of_the_embedding():
    branches = {"joined": {"length": 8, "stride": 2, "ngrams": 3}, "plain": {"length": 16}}
    searched, task = with_input({"choice": branches}), Cut()
    assert invalid_corners(searched, task) == []
    found = {corner["input"]["length"]: build(corner, task) for corner in searched.corners()}
    assert {length: network.trunk.positions.table.shape[0] for length, network in found.items()} == {8: 4, 16: 16}
    assert (found[8].embedding.stride, found[8].embedding.first.ngrams) == (2, 3)


def test_a_setting_of_the_embedding_is_in_one_section():
    softmax = {"_target_": "spaces.attention.softmax.SoftmaxAttention"}
    model = {**MODEL, "stride": 1}
    space = Space({"attention": {"softmax": softmax}, "model": model, "train": {"epochs": 1}, "input": {"stride": 2}})
    message = "input.stride: the space also has model.stride; only one of them may be given"
    assert message in invalid_corners(space, Cut())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"length": {"choice": [8, 64]}}, "input: length=64: it must be at most 31"),
        ({"patch": 4}, "input: Cut does not take 'patch'; it takes length"),
    ],
)
def test_invalid_input_settings_are_reported(given, message):
    assert message in invalid_corners(with_input(given), Cut())


def test_a_task_without_input_settings_refuses_them():
    problems = invalid_corners(with_input({"length": 8}), Constant())
    assert problems == ["input: Constant does not take 'length'; it takes no settings"]


LENGTH_SETTINGS = [
    ("adaptive_span.AdaptiveSpanAttention", "max_span"),
    ("linformer.LinformerAttention", "rank"),
    ("longformer.LongformerAttention", "window"),
    ("nystromformer.NystromformerAttention", "landmarks"),
    ("local.LocalAttention", "block_size"),
    ("reformer.ReformerAttention", "bucket_size"),
    ("topk.TopkAttention", "k"),
]


@pytest.mark.parametrize(("mechanism", "setting"), LENGTH_SETTINGS, ids=str)
@pytest.mark.parametrize(
    "relative",
    [
        pytest.param({"choice": [0.02, 0.5, 1.0], "as": "share"}, marks=pytest.mark.slow),
        {"choice": [1, 16, 512], "as": "clip"},
    ],
)
def test_relative_settings_fit_every_length(mechanism, setting, relative):
    others = {"local": {"neighbours": 0}}.get(mechanism.split(".")[0], {})
    node = {"_target_": f"spaces.attention.{mechanism}", setting: relative, **others}
    searched = space(mechanism=node)
    for length in (2, 3, 31, 100):
        assert invalid_corners(searched, Constant(length=length)) == []


@pytest.mark.parametrize(
    ("given", "length", "tokens"),
    [
        ({"share": 0.25}, 64, 16),
        ({"share": 0.001}, 64, 1),
        ({"share": 1.0}, 64, 63),
        ({"clip": 16}, 64, 16),
        ({"clip": 16}, 9, 8),
        (7, 3, 7),
    ],
)
def test_relative_settings_are_converted_to_tokens(given, length, tokens):
    assert in_tokens({"window": given, "mode": "a"}, length) == {"window": tokens, "mode": "a"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 1.5}, r"rank: share=1.5: it must be above 0 and at most 1"),
        ({"share": 0}, r"rank: share=0: it must be above 0 and at most 1"),
        ({"clip": 0}, r"rank: clip=0: it must be a whole number from 1"),
        ({"clip": 0.5}, r"rank: clip=0.5: it must be a whole number from 1"),
    ],
)
def test_invalid_relative_settings_are_reported(given, message):
    found = invalid_corners(space(linformer={**LINFORMER, "rank": given}), Constant())
    assert found == [f"attention.linformer.{message}"]


def test_relative_settings_are_described_by_the_name_of_the_setting():
    searched = space(linformer={**LINFORMER, "rank": {"choice": [0.25, 0.5], "as": "share"}})
    corner = next(searched.corners())
    assert describe(corner, searched.dimension_names()) == "linformer depth=1 heads=1 rank=0.25"
