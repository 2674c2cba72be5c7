"""Sparse weights: which are 0, that they stay 0 in training and in files, and that a parent has none."""

import io
from dataclasses import replace

import pytest
import torch
from tiny_task import SOFTMAX, FirstToken

from search.compress.library import Library
from search.compress.options import Options
from search.compress.prediction import measure_settings
from search.costs.counted import count
from search.programs.interface import Interface
from search.programs.program import Exporter
from search.report.sparsity import describe_sparsity
from search.training.fit import LightningFit
from search.training.settings import TrainSettings
from search.training.weights import read_weights, write_weights
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.models.sparsity import smallest, sparse_layers
from spaces.space import Space

SETTINGS = TrainSettings(epochs=3, lr=0.03, batch_size=16, weight_decay=0.1)


def architecture(sparsity, **model):
    return {**SOFTMAX, "model": {**SOFTMAX["model"], "sparsity": sparsity, **model}}


def zero_weights(network):
    return [layer.weight == 0 for layer in sparse_layers(network)]


@pytest.mark.parametrize("ties", [False, True])
def test_of_four_inputs_the_two_with_the_largest_weights_are_kept(ties):
    weight = torch.randint(-2, 3, (6, 12)).float() if ties else torch.randn(6, 12)
    zeros = smallest(weight, "2:4")
    for row, chosen in zip(weight.abs().tolist(), zeros.tolist(), strict=True):
        for start in range(0, 12, 4):
            group = list(zip(row[start : start + 4], chosen[start : start + 4], strict=True))
            kept, removed = ([value for value, is_zero in group if is_zero == which] for which in (False, True))
            assert len(kept) == len(removed) == 2
            assert min(kept) >= max(removed)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_share_of_the_weights_with_the_smallest_values_becomes_0(share):
    weight = torch.randn(7, 9)
    expected = sorted(weight.abs().flatten().tolist())[: round(share * 63)]
    assert sorted(weight.abs()[smallest(weight, share)].tolist()) == expected


@pytest.mark.parametrize("settings", [{}, {"ema": 0.5}, {"accumulate": 3, "keep_best": True}])
@pytest.mark.parametrize(("sparsity", "quantization"), [("2:4", "none"), (0.7, "none"), ("2:4", "int8")])
def test_zeros_survive_training_and_the_other_weights_learn(sparsity, quantization, settings):
    task, given = FirstToken(), architecture(sparsity, quantization=quantization)
    network = build(given, task)
    before = [layer.weight.detach().clone() for layer in sparse_layers(network)]
    with LightningFit(network, task, replace(SETTINGS, **settings), seed=0) as training:
        for _ in training:
            weights = training.weights()
    network.load_state_dict(weights)
    for layer, old in zip(sparse_layers(network), before, strict=True):
        assert torch.equal(layer.weight == 0, old == 0)
        assert not torch.equal(layer.weight, old)
    assert network.head.weight.count_nonzero() == network.head.weight.numel()


def test_a_training_that_is_resumed_keeps_the_zeros_of_its_checkpoint():
    task, given, saved = FirstToken(), architecture("2:4"), {}
    with LightningFit(build(given, task, seed=1), task, SETTINGS, seed=0) as whole:
        for epoch, _ in whole:
            saved[epoch] = io.BytesIO()
            torch.save(whole.state_dict(), saved[epoch])
            weights = whole.weights()
    saved[1].seek(0)
    other = build(given, task, seed=2)  # with other zeros
    with LightningFit(other, task, SETTINGS, seed=0, checkpoint=saved[1]) as resumed:
        list(resumed)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert all(zeros.double().mean() == 0.5 for zeros in zero_weights(other))


def test_zeros_survive_files_and_programs(tmp_path):
    task, given = FirstToken(), architecture("2:4")
    network = build(given, task, seed=3).eval()
    write_weights(tmp_path / "a.safetensors", network.state_dict(), given)
    again = build(given, task, seed=4).eval()
    again.load_state_dict(read_weights(tmp_path / "a.safetensors", given))
    assert all(map(torch.equal, zero_weights(network), zero_weights(again)))
    Exporter(again, Interface.of(given, task)).write_torch(tmp_path / "a.pt2")
    program = torch.export.load(tmp_path / "a.pt2")
    exported = [value for value in program.state_dict.values() if value.dim() == 2]
    for layer in sparse_layers(network):
        assert any(torch.equal(layer.weight, each) for each in exported)


def test_what_is_not_zero_is_a_cost_and_the_note_says_that_latency_does_not_follow():
    task = FirstToken()
    dense, sparse = (count(build(architecture(each), task), task, also=["nonzero"]) for each in (0, "2:4"))
    in_blocks = sum(layer.weight.numel() for layer in sparse_layers(build(architecture(0), task)))
    assert dense["nonzero"] == dense["parameters"] == sparse["parameters"]
    assert sparse["nonzero"] == sparse["parameters"] - in_blocks / 2
    for sparsity, notes in ((0, 0), ("2:4", 1), ({"choice": [0, 0.5]}, 1)):
        assert len(describe_sparsity(Space(architecture(sparsity) | {"train": {"epochs": 1, "lr": 0.1}}))) == notes


@pytest.mark.parametrize("sparsity", [1, -0.1, True, "4:8", 124, None])
def test_an_unknown_sparsity_is_refused(sparsity):
    with pytest.raises(ConfigError, match=r"^model\.sparsity=.*: it must be the share of the weights that are 0"):
        build(architecture(sparsity), FirstToken())


def test_groups_of_four_must_divide_the_inputs():
    with pytest.raises(ConfigError, match=r"^model\.sparsity='2:4': a linear layer has 6 inputs; 4 must divide them"):
        build(architecture("2:4", width=6), FirstToken())


def test_in_a_compression_the_parent_is_dense_and_its_networks_begin_with_its_largest_weights(tmp_path):
    space = Space(
        {
            "attention": SOFTMAX["attention"],
            "pattern": ["softmax"],
            "model": {**SOFTMAX["model"], "depth": 1, "sparsity": {"choice": [0, 0.5, "2:4"]}},
            "train": {"epochs": 1, "lr": 0.1},
            "compression": {"steps": 0},
        }
    )
    task, options = FirstToken(), Options(space)
    parent = build(options.parent, task, seed=5)
    library = Library(tmp_path, options, task, parent, tokens=64, steps=0, lr=0.1, seed=0)
    assert not any(each.any() for each in zero_weights(parent))
    calls = []
    settings = measure_settings(options, library, lambda networks: calls.append(1) or [1.0] * len(networks))
    assert len(calls) == 1, "latency does not depend on zeros"
    assert [each.parameters["model.sparsity"] for each in settings] == [0, 0.5, "2:4"]
    assert settings[0].damage == pytest.approx(0, abs=1e-6)
    assert min(each.damage for each in settings[1:]) > 0
    network = build(options.architecture(settings[2].parameters), task, seed=6)
    library.load_into(network, options.architecture(settings[2].parameters))
    for ours, theirs in zip(sparse_layers(network), sparse_layers(parent), strict=True):
        zeros = smallest(theirs.weight, "2:4")
        assert torch.equal(ours.weight, theirs.weight.masked_fill(zeros, 0))
