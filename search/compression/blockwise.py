"""Blockwise distillation: a sub-block learns to return what the parent's returns for the parent's hidden states.

Bercovich et al., "Puzzle", 2024 (arXiv:2411.19146), section 3.1; relative error as there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.compression.options import Part
from spaces.models.pretrained import PostNormBlock

Inputs = Sequence[tuple[Tensor, Tensor | None]]  # hidden states (batch, n, width) and padding (batch, n) of batches


def divergence(logits: Tensor, expected: Tensor) -> float:
    """The mean Kullback-Leibler divergence, in nats, of predictions from the expected ones, both ``(n, classes)``."""
    log_p = expected.log_softmax(-1)
    return float(F.kl_div(logits.log_softmax(-1), log_p, log_target=True, reduction="batchmean"))


def distill(
    block: PostNormBlock,
    source: PostNormBlock,
    part: Part,
    inputs: Inputs,
    *,
    steps: int,
    lr: float,
) -> None:
    """Train a sub-block to return what that of ``source`` returns."""
    module = block.mechanism if part == "attention" else nn.ModuleList([block.up_proj, block.down_proj])
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    with torch.enable_grad():
        for step in range(steps):
            x, padding = inputs[step % len(inputs)]
            with torch.no_grad():
                if part == "feed_forward":
                    x = source.after_attention(x, padding)
                expected = source.mechanism(x, padding) if part == "attention" else source.feed_forward(x)
            output = block.mechanism(x, padding) if part == "attention" else block.feed_forward(x)
            loss = relative_error(output, expected, padding)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def relative_error(output: Tensor, expected: Tensor, padding: Tensor | None) -> Tensor:
    """Squared error over the square of what is expected, both ``(batch, n, width)``, without padding."""
    if padding is not None:
        output, expected = output[~padding], expected[~padding]
    return (output - expected).square().sum() / expected.square().sum().clamp(min=1e-12)


@torch.no_grad()
def active_neurons(source: PostNormBlock, inputs: Inputs, count: int) -> Tensor:
    """The indices, ascending, of the hidden features with the largest mean |activation| x norm of outgoing weights."""
    total = torch.zeros(source.up_proj.out_features)
    for x, padding in inputs:
        hidden = source.activation(source.up_proj(source.after_attention(x, padding))).abs()
        total += (hidden if padding is None else hidden[~padding]).flatten(0, -2).sum(0)
    importance = total * source.down_proj.weight.norm(dim=0)
    return importance.topk(count).indices.sort().values


@torch.no_grad()
def copy_rest(block: PostNormBlock, source: PostNormBlock, except_for: str) -> None:
    """Copy the weights of a block except those of the modules whose names contain ``except_for``."""
    own = block.state_dict()
    for name, value in source.state_dict().items():
        if except_for not in name.split(".")[0] and name in own:
            own[name].copy_(value)
