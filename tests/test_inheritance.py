"""Sliced equals gated: a network without some heads and neurons equals its parent with these multiplied by 0."""

import pytest
import torch
from tiny_task import SOFTMAX, FirstToken
from torch import nn

from spaces.build import build
from spaces.models.inheritance import inherit

HEADS, HEAD_DIM, WIDTH = 4, 3, 12


def network(*, kept_heads=1.0, kv_heads=None, feed_forward=2.0, activation="gelu"):
    model = {**SOFTMAX["model"], "depth": 2, "width": WIDTH, "heads": HEADS}
    attention = {**SOFTMAX["attention"]["softmax"], "kept_heads": kept_heads, "kv_heads": kv_heads}
    model |= {"feed_forward": feed_forward, "activation": activation}
    architecture = {**SOFTMAX, "model": model, "pattern": ["softmax"] * 2, "attention": {"softmax": attention}}
    return build(architecture, FirstToken()).eval()


@torch.no_grad()
def gate_heads(mechanism, count):
    """Multiply the outputs of all heads but ``count`` by 0: those with the smallest weights."""
    shared = HEADS // mechanism.kv_heads
    value = mechanism.value.weight.detach().unflatten(0, (-1, HEAD_DIM))
    output = mechanism.output.weight.detach().unflatten(1, (-1, HEAD_DIM))
    scores = [float(value[head // shared].norm() * output[:, head].norm()) for head in range(HEADS)]
    for head in sorted(range(HEADS), key=scores.__getitem__)[: HEADS - count]:
        mechanism.output.weight.data.unflatten(1, (-1, HEAD_DIM))[:, head] *= 0


@torch.no_grad()
def gate_neurons(feed_forward, count):
    """Multiply all hidden features but ``count`` by 0."""
    up, gate, down = feed_forward.up_proj, feed_forward.gate_proj, feed_forward.down_proj
    scores = [float(up.weight[n].norm() * down.weight[:, n].norm()) for n in range(feed_forward.hidden)]
    if gate is not None:
        scores = [score * float(gate.weight[n].norm()) for n, score in enumerate(scores)]
    for neuron in sorted(range(len(scores)), key=scores.__getitem__)[: len(scores) - count]:
        down.weight.data[:, neuron] *= 0


def sizes(network):
    return [(block.mechanism.heads, block.feed_forward.hidden) for block in network.blocks]


@pytest.mark.parametrize(
    ("settings", "sliced"),
    [
        ({}, {"kept_heads": 0.5}),
        ({"kv_heads": 2}, {"kept_heads": 0.75}),
        ({"kv_heads": 1}, {"kept_heads": 0.25}),
        ({}, {"feed_forward": 0.5}),
        ({"activation": "swiglu"}, {"feed_forward": 0.75}),
        ({"activation": "swiglu"}, {"kept_heads": 0.5, "feed_forward": 0.25}),
    ],
)
def test_a_sliced_network_equals_the_gated_one(settings, sliced):
    parent = network(**settings)
    for parameter in parent.parameters():  # biases are 0 otherwise
        nn.init.normal_(parameter, std=0.5)
    own = {name: value for name, value in settings.items() if name != "kv_heads" or "kept_heads" not in sliced}
    child = network(**own | sliced)
    inherit(child, parent)
    assert sizes(child) != sizes(parent)
    for small, whole in zip(child.blocks, parent.blocks, strict=True):
        gate_heads(whole.mechanism, small.mechanism.heads)
        gate_neurons(whole.feed_forward, small.feed_forward.hidden)
    batch = FirstToken().sample(5)
    torch.testing.assert_close(child(batch), parent(batch))
