"""Counted costs against counts by hand."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from search.config import COSTS
from search.costs.counted import count, file_mb, flops, memory_mb, parameters, state_mb, training_mb
from spaces.attention import Shape
from spaces.attention.linear import LinearAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.models.config import ModelConfig
from spaces.models.decoder import Decoder
from spaces.models.encoder import Encoder
from spaces.tasks import Task
from spaces.tasks.text import Text
from tests.tiny_task import FirstToken


class Apply(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


def test_a_shared_parameter_counts_once():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    assert parameters(network) == 4 * 4 + 4 + 4 * 4
    network[1].weight = network[0].weight
    assert parameters(network) == 4 * 4 + 4


def attend(**settings):
    return lambda x: F.scaled_dot_product_attention(x, x, x, **settings)


def solve(**settings):
    return lambda x: torch.linalg.solve_triangular(torch.eye(LENGTH), x, upper=False, **settings)


BATCH, HEADS, LENGTH, WIDTH = 2, 3, 32, 8
IMAGE = torch.randn(BATCH, HEADS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))
ATTENTION = 2 * BATCH * HEADS * (2 * LENGTH * LENGTH * WIDTH)  # two matrix products, two FLOPs a multiply-add


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Linear(WIDTH, 5), 2 * BATCH * HEADS * LENGTH * WIDTH * 5),
        (Apply(lambda x: x @ x.mT), 2 * BATCH * HEADS * LENGTH * LENGTH * WIDTH),
        (Apply(lambda x: (x @ x.mT).softmax(-1) @ x), ATTENTION),
        (Apply(attend()), ATTENTION),
        (Apply(attend(is_causal=True)), ATTENTION),  # the kernel skips masked blocks, which is not counted
        (Apply(attend(attn_mask=torch.ones(LENGTH, LENGTH, dtype=torch.bool))), ATTENTION),
        (Apply(lambda x: F.scaled_dot_product_attention(x, x[..., :4, :], x[..., :4, :])), ATTENTION * 4 // LENGTH),
        (nn.Conv2d(HEADS, 7, kernel_size=3, padding=1), 2 * BATCH * HEADS * LENGTH * WIDTH * 7 * 9),
        (Apply(lambda x: torch.fft.fft(x + 0j)), 5 * IMAGE.numel() * math.log2(WIDTH)),
        (Apply(lambda x: torch.fft.fft2(x + 0j)), 5 * IMAGE.numel() * math.log2(WIDTH * LENGTH)),
        (Apply(torch.fft.rfft), 5 * IMAGE.numel() * math.log2(WIDTH) / 2),
        (Apply(lambda x: torch.fft.irfft(torch.fft.rfft(x))), 5 * IMAGE.numel() * math.log2(WIDTH)),
        (Apply(solve()), BATCH * HEADS * LENGTH**2 * WIDTH),
        (Apply(lambda x: solve(left=False)(x.mT)), BATCH * HEADS * LENGTH**2 * WIDTH),  # rows as right-hand sides
        (Apply(lambda x: x.relu() + 1), 0),
    ],
)
def test_flops_equal_counts_by_hand(network, expected):
    assert flops(network, IMAGE) == expected


def test_flops_of_an_encoder_are_the_sum_over_its_layers():
    task = FirstToken(length=16)
    mechanism = SoftmaxAttention(Shape(8, 2, 16))
    network = Encoder([mechanism], ModelConfig(8, feed_forward=2.0), spec=task.spec)
    attention, feed_forward, head = 4 * 16 * 16 * 8, 2 * 2 * 16 * 8 * 16, 2 * 8 * 3
    projections = 4 * 2 * 16 * 8 * 8
    assert flops(network, task.sample()) == projections + attention + feed_forward + head


@pytest.mark.parametrize("mechanism", [SoftmaxAttention, LinearAttention])
def test_flops_of_generated_text_are_those_that_pytorch_counts(mechanism):
    task = Text(predict="next_byte", length=16, generate=5)
    network = Decoder([mechanism(Shape(8, 2, 16, causal=True))], ModelConfig(width=8, ngrams=2), spec=task.spec).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        with sdpa_kernel(SDPBackend.MATH):  # for the other kernels it has no formula on a CPU
            task.predict(network, task.sample())
        expected = counter.get_total_flops()
    assert count(network, task)["flops"] == expected > 0


SQUARE = torch.ones(100, 100)  # 0.04 MB
FIXED = nn.Linear(100, 100, bias=False)  # 0.04 MB


def two_at_once(x):
    y = x.exp()
    return y.exp()


def one_after_the_other(x):
    for _ in range(5):
        x = x.exp()
    return x


@pytest.mark.parametrize(
    ("network", "squares"),
    [
        (Apply(lambda x: x), 1),
        (Apply(two_at_once), 3),
        (Apply(one_after_the_other), 3),
        (Apply(lambda x: x.T[1:].view(99, 100)[None]), 1),  # views
        (Apply(lambda x: x.exp().add_(1).mul_(2)), 2),  # in place
        (Apply(lambda x: x.double()), 3),  # eight bytes a number
        (FIXED, 3),
        (nn.Sequential(FIXED, FIXED, FIXED), 4),
        (nn.BatchNorm1d(100, affine=False), 2 + (2 * 100 * 4 + 8) / 4e4),  # buffers
    ],
)
def test_memory_is_the_peak_of_live_tensors(network, squares):
    expected = pytest.approx(0.04 * squares)
    assert memory_mb(network, SQUARE) == expected
    assert memory_mb(network, SQUARE) == expected  # reproducible


def test_memory_counts_the_whole_storage_of_a_view():
    assert memory_mb(Apply(lambda x: x), SQUARE[:1]) == pytest.approx(0.04)


def naive(x):
    return (x @ x.mT).softmax(-1) @ x


def composite(x):
    with sdpa_kernel(SDPBackend.MATH):  # the attention matrix exists only inside one composite operator
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(("attention", "power"), [(naive, 2), (composite, 2), (attend(), 1)])
def test_memory_is_quadratic_if_the_attention_matrix_is_materialised(attention, power):
    short, long = (memory_mb(Apply(attention), torch.ones(1, 1, n, 4)) for n in (256, 1024))
    assert 4**power * 0.8 < long / short <= 4**power


def test_counting_does_not_change_the_network():
    network = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
    network[1].eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = torch.ones(4, 8)
    flops(network, inputs), memory_mb(network, inputs)
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        flops(network, torch.ones(4, 9))
    assert [module.training for module in network.modules()] == [True, True, False, True]


def test_count_returns_every_cost_and_is_reproducible():
    task = FirstToken()
    mechanism = SoftmaxAttention(Shape(4, 1, 8))
    network = Encoder([mechanism], ModelConfig(4), spec=task.spec)
    first = count(network, task)
    assert first == count(network, task)
    assert list(first) == ["parameters", "flops", "memory_mb", "file_mb"]
    assert all(value > 0 for value in first.values())


def test_a_sample_has_the_requested_shape():
    task = FirstToken(length=8, rows=3)
    inputs = task.data("validation").inputs
    assert torch.equal(task.sample().inputs, inputs[:1])
    assert torch.equal(task.sample(5).inputs, inputs[[0, 1, 2, 0, 1]])
    assert torch.equal(task.sample(2, 5).inputs, inputs[:2, :5])
    for length in (0, 9):
        with pytest.raises(ValueError, match="lengths from 1 to 8"):
            task.sample(length=length)


class Product(Task):
    """Squares of the outputs of a linear layer, for numbers instead of tokens."""

    chance, batch_size = 0.0, 5

    def examples(self, split):
        raise NotImplementedError

    def sample(self, batch=1, length=None):
        return torch.ones(batch, 100)

    def loss(self, logits, batch):
        return logits.square().sum()


def test_the_memory_of_a_training_step_has_gradients_and_the_state_of_adam():
    network = nn.Linear(100, 200, bias=False)
    weights, inputs, outputs = 4 * 100 * 200, 4 * 5 * 100, 4 * 5 * 200
    least = (inputs + outputs + weights + weights + 2 * weights) / 1e6  # with gradients and Adam
    assert least <= training_mb(network, Product()) <= 1.1 * least
    assert network.weight.grad is None
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    training_mb(nn.Sequential(nn.Dropout(0.5), network), Product())
    assert torch.rand(1) == expected, "random numbers are those without counting"


def test_the_weights_are_parameters_and_buffers():
    assert file_mb(nn.BatchNorm1d(10)) == (4 * 4 * 10 + 8) / 1e6  # and the number of batches, an int64


@pytest.mark.parametrize(
    ("mechanism", "numbers"),
    [
        (SoftmaxAttention, lambda length: 2 * length * 8),  # keys and values
        (LinearAttention, lambda length: 2 * 4 * 4 + 2 * 4),  # per head a matrix and a normaliser
        (partial(LinearAttention, feature_map="hedgehog"), lambda length: 2 * (2 * 4 * 4 + 2 * 4)),
    ],
)
def test_the_state_of_decoding_is_what_the_mechanism_keeps(mechanism, numbers):
    for length in (8, 16):
        task = Text(predict="next_byte", length=length)
        network = Decoder([mechanism(Shape(8, 2, length, causal=True))], ModelConfig(width=8), spec=task.spec)
        others = 4 * 2 * 8 + 8  # the last two inputs of the short convolution, and the latest token, an int64
        assert 1e6 * state_mb(network, task) == pytest.approx(4 * numbers(length) + others)
    assert state_mb(nn.Linear(2, 2), task) == 0.0


def test_costs_that_take_long_to_count_are_counted_on_request_alone():
    task = FirstToken()
    network = Encoder([SoftmaxAttention(Shape(8, 2, 8))], ModelConfig(width=8), spec=task.spec)
    always = count(network, task)
    assert set(always) | {"training_mb", "state_mb", "nonzero", "latency_ms", "energy_mj"} == set(COSTS)
    assert set(count(network, task, also=["training_mb"])) - set(always) == {"training_mb"}
