"""What is timed: a prediction, reading a prompt, the next token of a text, or a step of training.

==============  ========================================================================================
``forward``     ``Task.predict``: a forward pass, or generation where the task's answer is generated
``prefill``     a text read at once, up to the logits of the next token and the cache of a language model
``decode``      the next token of a language model, whose cache holds the tokens before it
``train_step``  forward pass, loss and backward pass, without the optimizer
==============  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from spaces.dimensions import ConfigError
from spaces.models.language_model import LanguageModel
from spaces.tasks import Batch, Task

Use = Callable[[], object]


def check_mode(mode: str, network: nn.Module) -> None:
    """Raise :class:`ConfigError` unless ``network`` can be used in a mode."""
    if mode in ("prefill", "decode") and not isinstance(network, LanguageModel):
        raise ConfigError(
            f"latency.mode={mode}: {type(network).__name__} is no language model; it takes a space such as generation"
        )


def _forward(network: nn.Module, task: Task, batch: Batch) -> Use:
    return torch.inference_mode()(partial(task.predict, network, batch))


def _prefill(network: nn.Module, task: Task, batch: Batch) -> Use:
    assert isinstance(network, LanguageModel)  # see check_mode
    return torch.inference_mode()(partial(network.prefill, batch.inputs))


def _decode(network: nn.Module, task: Task, batch: Batch) -> Use:
    """Decode the last token of ``batch``, ``(batch, length)``, after all others."""
    assert isinstance(network, LanguageModel)  # see check_mode
    with torch.inference_mode():
        if batch.inputs.shape[1] == 1:
            cache = network.init_cache(len(batch.inputs))
        else:
            _, cache = network.prefill(batch.inputs[:, :-1])
    return torch.inference_mode()(partial(network.decode_step, batch.inputs[:, -1], cache))


def _train_step(network: nn.Module, task: Task, batch: Batch) -> Use:
    def step() -> None:
        network.train()
        network.zero_grad()
        with torch.inference_mode(False), torch.enable_grad():
            task.loss(network(batch), batch).backward()
        network.eval()

    return step


MODES: Mapping[str, Callable[[nn.Module, Task, Any], Use]] = {
    "forward": _forward,
    "prefill": _prefill,
    "decode": _decode,
    "train_step": _train_step,
}
