"""Linear layers in 8-bit integers: within the bound of their rounding, in floating point while gradients are needed."""

import copy

import pytest
import torch
from tiny_task import FirstToken
from torch import nn

from search.costs.counted import flops
from search.training.average import WeightAverage
from spaces.batch import Batch
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.models.quantization import LARGEST, BFloat16Linear, Int8Linear, quantize, quantized


def layer(*, bias=True, seed=0):
    torch.manual_seed(seed)
    linear = nn.Linear(24, 10, bias=bias)
    return linear, Int8Linear.of(linear)


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_are_those_of_rounded_weights_and_inputs(bias):
    linear, int8 = layer(bias=bias)
    x = torch.randn(3, 5, 24)
    # By the range of the inputs in 7 bits, where a bit is left to the sums, or 8; the zero point is an integer.
    low, high = min(0.0, x.min().item()), max(0.0, x.max().item())
    step = (high - low) / LARGEST
    weight_steps = linear.weight.detach().abs().amax(1) / LARGEST
    rounded = (linear.weight.detach() / weight_steps[:, None]).round() * weight_steps[:, None]
    with torch.no_grad():
        expected = x @ rounded.T + (linear.bias if bias else 0)
        bound = step * rounded.abs().sum(1)
        assert ((int8(x) - expected).abs() <= bound).all()
        assert ((int8(x) - linear(x)).abs() > 0).any()


@pytest.mark.parametrize("bias", [False, True])
def test_in_bfloat16_the_error_is_within_that_of_rounding(bias):
    linear, _ = layer(bias=bias)
    rounded, x = BFloat16Linear.of(linear), 10 * torch.randn(3, 5, 24)
    unit = 2.0**-8  # the largest relative error of rounding to 8 significant bits
    with torch.no_grad():
        exact, found = linear(x), rounded(x)
        products = x.abs() @ linear.weight.abs().T
        inner = (2 * unit + unit**2) * products + (unit * linear.bias.abs() if bias else 0)
        bound = inner + unit * (exact.abs() + inner) + 1e-5 * products  # and of the output, and of sums in float32
    assert found.dtype == torch.float32
    assert ((found - exact).abs() <= bound).all()
    assert ((found - exact).abs() > 0).any()


def test_a_weight_is_rounded_by_at_most_half_a_step_of_its_row():
    weight = torch.randn(6, 40) * torch.tensor([1e-3, 1.0, 10.0, 0.0, 1.0, 1.0])[:, None]
    step = weight.abs().amax(1, keepdim=True) / LARGEST
    assert ((quantized(weight).dequantize() - weight).abs() <= step / 2 + 1e-7 * step).all()


def test_with_gradients_it_is_the_layer_in_floating_point():
    linear, int8 = layer()
    x = torch.randn(4, 24)
    torch.testing.assert_close(int8(x), linear(x), rtol=0, atol=0)
    int8(x).sum().backward()
    assert linear.weight.grad is not None


@pytest.mark.parametrize("change", ["weight", "bias", "load"])
def test_changed_parameters_are_quantized_again(change):
    linear, int8 = layer()
    other, expected = layer(seed=1)
    x = torch.randn(4, 24)
    with torch.no_grad():
        before = int8(x)
        if change == "load":
            int8.load_state_dict(other.state_dict())
            torch.testing.assert_close(int8(x), expected(x))
        else:
            getattr(int8, change).mul_(2.0)
            assert not torch.equal(int8(x), before)
            torch.testing.assert_close(int8(x), Int8Linear.of(linear)(x))


@pytest.mark.parametrize("fused", [False, True])
def test_a_trained_layer_is_quantized_again(fused):
    _, int8 = layer()
    x = torch.randn(4, 24)
    with torch.no_grad():
        before = int8.eval()(x)
    optimizer = torch.optim.AdamW(int8.train().parameters(), lr=0.1, fused=fused)
    int8(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(int8.eval()(x), Int8Linear.of(int8)(x), rtol=0, atol=0)
        assert not torch.equal(int8(x), before)


@pytest.mark.parametrize("fused", [False, True])
def test_an_average_of_weights_is_quantized_again(fused):
    _, int8 = layer()
    x, average = torch.randn(4, 24), WeightAverage(int8, 0.5)
    optimizer = torch.optim.AdamW(int8.parameters(), lr=0.1, fused=fused)
    for step in range(3):
        int8.train()(x).sum().backward()
        optimizer.step()
        average.update(int8, step)
        with torch.no_grad():
            expected = Int8Linear.of(average.network)(x)
            torch.testing.assert_close(average.network.eval()(x), expected, rtol=0, atol=0)


def test_it_can_be_copied_and_its_state_is_that_of_the_linear_layer():
    linear, int8 = layer()
    x = torch.randn(4, 24)
    with torch.no_grad():
        output = int8(x)
        torch.testing.assert_close(copy.deepcopy(int8)(x), output)
    assert int8.state_dict().keys() == linear.state_dict().keys()


def test_shared_layers_stay_shared_and_other_modules_stay_as_they_are():
    shared, own = nn.Linear(4, 4), nn.Linear(4, 4)
    network = nn.ModuleDict(
        {"a": nn.Sequential(shared, nn.GELU()), "b": nn.Sequential(shared, own), "c": nn.Conv1d(1, 1, 1)}
    )
    quantize(network, "int8")
    assert network["a"][0] is network["b"][0]
    assert network["b"][1].weight is own.weight
    assert [type(each).__name__ for each in network.modules() if not list(each.children())] == [
        "Int8Linear",
        "GELU",
        "Int8Linear",
        "Conv1d",
    ]


def built(**settings):
    model = {"_target_": "spaces.models.encoder.Encoder", "depth": 2, "width": 16, "heads": 2, **settings}
    attention = {"softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}}
    return build({"model": model, "pattern": ["softmax"] * 2, "attention": attention, "train": {}}, FirstToken())


@pytest.mark.parametrize(("quantization", "error"), [("int8", 0.1), ("bf16", 0.03)])
def test_an_architecture_in_another_format_is_close_to_that_in_float32_with_the_same_flops(quantization, error):
    networks = [built(quantization=each).eval() for each in ("none", quantization)]
    task = FirstToken()
    batch: Batch = next(task.batches("validation", 8))
    with torch.inference_mode():
        exact, rounded = (network(batch) for network in networks)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=error * float(exact.std()))
    counted = {flops(network, task.sample()) for network in networks}
    assert len(counted) == 1
    assert counted.pop() > 0


def test_an_unknown_quantization_is_refused():
    with pytest.raises(ConfigError, match=r"^model\.quantization='int4': it must be one of none, int8, bf16, onnx"):
        built(quantization="int4")
