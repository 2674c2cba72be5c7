"""What is timed: a prediction, a decoded token, a step of training."""

import pytest
import torch
from tiny_task import FirstToken

from search.costs.latency import MeasuredLatency
from search.costs.modes import MODES, check_mode
from spaces.attention import Shape
from spaces.attention.softmax import SoftmaxAttention
from spaces.dimensions import ConfigError
from spaces.models.config import ModelConfig
from spaces.models.decoder import Decoder
from spaces.models.encoder import Encoder
from spaces.spec import TaskSpec

TASK = FirstToken()
TEXT = TaskSpec(length=8, vocabulary=5, classes=5, per_token=True, causal=True)


def encoder():
    return Encoder([SoftmaxAttention(Shape(8, 2, 8))], ModelConfig(width=8), spec=TASK.spec).eval()


def decoder():
    return Decoder([SoftmaxAttention(Shape(8, 2, 8, causal=True))], ModelConfig(width=8), spec=TEXT).eval()


def test_forward_is_a_prediction():
    network, batch = encoder(), TASK.sample(3)
    with torch.inference_mode():
        expected = network(batch)
    assert torch.equal(MODES["forward"](network, TASK, batch)(), expected)


def test_decode_gives_the_logits_of_the_last_token_after_all_others_every_time():
    network, batch = decoder(), TASK.sample(3)
    use = MODES["decode"](network, TASK, batch)
    with torch.inference_mode():
        expected = network(batch)[:, -1]
    for _ in range(2):
        torch.testing.assert_close(use()[0], expected)


def test_prefill_gives_the_logits_of_the_token_after_the_last_one():
    network, batch = decoder(), TASK.sample(3)
    with torch.inference_mode():
        expected = network(batch)[:, -1]
    torch.testing.assert_close(MODES["prefill"](network, TASK, batch)()[0], expected)


def test_a_training_step_has_gradients_and_restores_the_mode():
    network = encoder()
    use = MODES["train_step"](network, TASK, TASK.sample(3))
    for _ in range(2):
        use()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert not network.training


def test_a_training_step_is_slower_than_a_prediction_and_other_networks_than_language_models_cannot_decode():
    settings = {"rounds": 1, "repeats": 3, "sleep_s": 0.0, "wait_s": 0.0}
    ms = {
        mode: MeasuredLatency(mode=mode, **settings).measure(encoder(), TASK).ms for mode in ("forward", "train_step")
    }
    assert ms["train_step"] > ms["forward"]
    for mode in ("prefill", "decode"):
        with pytest.raises(ConfigError, match=rf"latency.mode={mode}: Encoder is no language model"):
            check_mode(mode, encoder())
        check_mode(mode, decoder())
    with pytest.raises(ValueError, match="mode='sleep': it must be forward, prefill, decode or train_step"):
        MeasuredLatency(mode="sleep")
