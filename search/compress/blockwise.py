"""Blockwise distillation: a sub-block learns to return what the parent's returns for the parent's hidden states.

Bercovich et al., "Puzzle", 2024 (arXiv:2411.19146), section 3.1; relative error as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from search.compress.options import Part
from search.training.imitation import relative_error
from spaces.models.block import Block, FeedForward
from spaces.tasks import IGNORE_INDEX

Inputs = Sequence[tuple[Tensor, Tensor | None]]  # hidden states (batch, n, width) and padding (batch, n) of batches


def divergence(logits: Tensor, expected: Tensor) -> float:
    """The mean Kullback-Leibler divergence, in nats, of predictions from the expected ones, both ``(n, classes)``."""
    log_p = expected.log_softmax(-1)
    return float(F.kl_div(logits.log_softmax(-1), log_p, log_target=True, reduction="batchmean"))


def labelled(logits: Tensor, labels: Tensor) -> Tensor:
    """The predictions ``(n, classes)`` that have a label, of logits ``(batch, classes)`` or ``(batch, n, classes)``."""
    return logits if logits.dim() == 2 else logits[labels != IGNORE_INDEX]


def distill(
    block: Block,
    source: Block,
    part: Part,
    inputs: Inputs,
    *,
    steps: int,
    lr: float,
    goes_on: Callable[[], bool] = lambda: True,
) -> bool:
    """Train a sub-block to return what that of ``source`` returns; both have it.

    Returns:
        Whether all steps were taken; ``goes_on``, called before each, may end them.
    """
    module, target = (block.mechanism, source.mechanism) if part == "attention" else _feed_forwards(block, source)
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    with torch.enable_grad():
        for step in range(steps):
            if not goes_on():
                return False
            x, padding = inputs[step % len(inputs)]
            with torch.no_grad():
                given = (source.mechanism_input(x), padding) if part == "attention" else (_after(source, x, padding),)
                expected = target(*given)
            loss = relative_error(module(*given), expected, padding)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return True


def _feed_forwards(block: Block, source: Block) -> tuple[FeedForward, FeedForward]:
    assert block.feed_forward is not None
    assert source.feed_forward is not None
    return block.feed_forward, source.feed_forward


def _after(source: Block, x: Tensor, padding: Tensor | None) -> Tensor:
    """The input of the feed-forward network."""
    return source.feed_forward_input(source.after_mechanism(x, padding))


@torch.no_grad()
def active_neurons(source: Block, inputs: Inputs, count: int) -> Tensor:
    """The indices, ascending, of the hidden features with the largest mean |activation| x norm of outgoing weights."""
    feed_forward = source.feed_forward
    assert feed_forward is not None
    total = torch.zeros(feed_forward.hidden)
    for x, padding in inputs:
        hidden = feed_forward.features(_after(source, x, padding)).abs()
        total += (hidden if padding is None else hidden[~padding]).flatten(0, -2).sum(0)
    importance = total * feed_forward.down_proj.weight.norm(dim=0)
    return importance.topk(count).indices.sort().values


@torch.no_grad()
def copy_rest(block: Block, source: Block, except_for: str) -> None:
    """Copy the weights of a block except those of the module called ``except_for``."""
    own = block.state_dict()
    for name, value in source.state_dict().items():
        if name.split(".")[0] != except_for and name in own:
            own[name].copy_(value)
