"""A network that takes over the weights of its parent, from which it differs in some sub-blocks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spaces.attention.projections import QKVMechanism
from spaces.models.pretrained import PostNormBlock, PretrainedEncoder, important_neurons


@torch.no_grad()
def inherit(network: PretrainedEncoder, parent: PretrainedEncoder) -> None:
    """Copy the parent's weights into a network of as many blocks; of a shorter one the first positions.

    Mechanisms with projections of queries, keys and values take over those of the parent's; smaller feed-forward
    networks its most important neurons. What the parent lacks stays as it is.
    """
    copy_matching(network, parent.state_dict())
    network.positions.copy_(parent.positions[: len(network.positions)])
    for block, source in zip(network.blocks, parent.blocks, strict=True):
        inherit_attention(block, source)
        if block.has_feed_forward and source.has_feed_forward:
            count = block.up_proj.out_features
            keep_neurons(block, source, important_neurons(source.up_proj.weight, source.down_proj.weight, count))


def inherit_attention(block: PostNormBlock, source: PostNormBlock) -> None:
    """Copy the projections of queries, keys, values and outputs, where both mechanisms have them."""
    ours, theirs = block.mechanism, source.mechanism
    if isinstance(ours, QKVMechanism) and isinstance(theirs, QKVMechanism):
        projections = (theirs.query, theirs.key, theirs.value, theirs.output)
        ours.load_projections(*((each.weight, each.bias) for each in projections))


@torch.no_grad()
def keep_neurons(block: PostNormBlock, source: PostNormBlock, kept: Tensor) -> None:
    """Copy the hidden features ``kept`` of the feed-forward network of another block."""
    block.up_proj.weight.copy_(source.up_proj.weight[kept])
    block.up_proj.bias.copy_(source.up_proj.bias[kept])
    block.down_proj.weight.copy_(source.down_proj.weight[:, kept])
    block.down_proj.bias.copy_(source.down_proj.bias)


@torch.no_grad()
def copy_matching(network: PretrainedEncoder, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights that the network has under the same name and with the same shape."""
    own = network.state_dict()
    for name, value in weights.items():
        if name in own and own[name].shape == value.shape:
            own[name].copy_(value)
