"""The layers of a checkpoint as blocks, of which feed-forward neurons may be left out.

Which layers a shallower network takes: evenly spaced ones, as in DistilBERT (Sanh et al., 2019), or the first ones. Of
the feed-forward networks, the neurons with the largest product of the norms of their weights are kept (as by magnitude
in Li et al., "Pruning Filters for Efficient ConvNets", 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.attention.kernels.rotary import set_rates
from spaces.attention.projections import QKVMechanism
from spaces.dimensions import check_number
from spaces.models.block import Block, FeedForward
from spaces.models.checkpoint import Checkpoint

Weights = tuple[Tensor, Tensor | None]  # weight and bias
Layers = Literal["spread", "first"]


def block_of(mechanism: Mechanism, source: Checkpoint, hidden: int, dropout: float) -> Block:
    """A block of the form of a checkpoint's layers, with ``hidden`` features of the feed-forward network, or 0."""
    family = source.family
    if isinstance(mechanism, QKVMechanism) and source.attention_biases:
        mechanism.add_biases()
    if source.rates:
        set_rates(mechanism, source.rates)
    return Block(
        mechanism,
        FeedForward(source.width, hidden, source.activation, bias=family.biases) if hidden else None,
        norm=lambda: norm_of(source),
        dropout=dropout,
        norm_first=family.norm_first,
    )


def norm_of(source: Checkpoint) -> nn.LayerNorm | nn.RMSNorm:
    """An empty norm of the checkpoint's kind."""
    kind = nn.RMSNorm if source.family.rms_norm else nn.LayerNorm
    return kind(source.width, eps=source.eps)


@torch.no_grad()
def load_block(block: Block, weights: Mapping[str, Weights]) -> None:
    """Take over the weights of a layer, of the feed-forward network those of the most important neurons."""
    if isinstance(block.mechanism, QKVMechanism):
        block.mechanism.load_projections(*(weights[name] for name in ("query", "key", "value", "output")))
    if block.feed_forward is not None:
        down, down_bias = weights["down_proj"]
        gate = weights["gate_proj"][0] if block.feed_forward.gate_proj is not None else None
        kept = important_neurons(weights["up_proj"][0], down, block.feed_forward.hidden, gate=gate)
        for name in ("up_proj", "gate_proj"):
            if (projection := getattr(block.feed_forward, name)) is not None:
                weight, bias = weights[name]
                copy_weights(projection, (weight[kept], None if bias is None else bias[kept]))
        copy_weights(block.feed_forward.down_proj, (down[:, kept], down_bias))
    for name in ("mechanism_norm", "feed_forward_norm"):
        if (norm := getattr(block, name)) is not None:
            copy_weights(norm, weights[name])


def kept_features(share: float, hidden: int) -> int:
    """How many of ``hidden`` features a share is: at least one, unless the share is 0."""
    return max(1, round(share * hidden)) if share else 0


def shares_of(feed_forward: float | Mapping[str, float], blocks: int) -> list[float]:
    """The share of each block."""
    given = feed_forward if isinstance(feed_forward, Mapping) else {str(n): feed_forward for n in range(blocks)}
    if list(given) != [str(block) for block in range(blocks)]:
        raise ValueError(f"feed_forward={dict(given)!r}: it must have the keys 0 to {blocks - 1}, one per block")
    for block, share in given.items():
        check_number(0, 1, **{"feed_forward" if given is not feed_forward else f"feed_forward.{block}": share})
    return list(given.values())


def kept_layers(depth: int, count: int, layers: Layers) -> list[int]:
    """The numbers, from 0, of ``count`` of ``depth`` layers: the first ones, or evenly spaced with both ends."""
    if layers == "first" or count == 1:
        return list(range(count))
    return [round(at * (depth - 1) / (count - 1)) for at in range(count)]


def important_neurons(up: Tensor, down: Tensor, count: int, *, gate: Tensor | None = None) -> Tensor:
    """The indices, ascending, of the ``count`` hidden features with the largest weights.

    Args:
        up: ``(hidden, width)``.
        down: ``(width, hidden)``.
        count: at most ``hidden``.
        gate: ``(hidden, width)``, with ``swiglu``: a feature is the product of two projections.
    """
    importance = up.norm(dim=1) * down.norm(dim=0)
    if gate is not None:
        importance = importance * gate.norm(dim=1)
    return importance.topk(count).indices.sort().values


def copy_weights(module: nn.Linear | nn.LayerNorm | nn.RMSNorm, weights: Weights) -> None:
    """Copy weight and bias."""
    weight, bias = weights
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            assert not isinstance(module, nn.RMSNorm)
            module.bias.copy_(bias)
