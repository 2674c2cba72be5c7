"""What is timed: a prediction, the next token of a text, or a step of training.

==============  ========================================================================================
``forward``     ``Task.predict``: a forward pass, or generation where the task's answer is generated
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
from spaces.models.decoder import Decoder
from spaces.tasks import Batch, Task

Use = Callable[[], object]


def check_decodes(network: nn.Module) -> None:
    """Raise :class:`ConfigError` unless a network decodes token by token."""
    if not isinstance(network, Decoder):
        raise ConfigError(
            f"latency.mode=decode: {type(network).__name__} is no language model; it takes a space such as generation"
        )


def _forward(network: nn.Module, task: Task, batch: Batch) -> Use:
    return torch.inference_mode()(partial(task.predict, network, batch))


def _decode(network: nn.Module, task: Task, batch: Batch) -> Use:
    """Decode the last token of ``batch``, ``(batch, length)``, after all others."""
    assert isinstance(network, Decoder)  # see check_decodes
    cache = network.init_cache(len(batch.inputs))
    *earlier, last = batch.inputs.unbind(1)
    with torch.inference_mode():
        for ids in earlier:
            _, cache = network.decode_step(ids, cache)
    return torch.inference_mode()(partial(network.decode_step, last, cache))


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
    "decode": _decode,
    "train_step": _train_step,
}
