"""A network that takes over the weights of its parent, from which it differs in some sub-blocks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spaces.attention.projections import QKVMechanism
from spaces.models.block import Block, FeedForward
from spaces.models.network import BlockNetwork
from spaces.models.pretrained import PretrainedNetwork
from spaces.models.pretrained_layers import important_neurons


@torch.no_grad()
def inherit(network: BlockNetwork, parent: BlockNetwork) -> None:
    """Copy the parent's weights into a network of as many blocks; of a shorter one the first positions.

    Mechanisms with projections of queries, keys and values take over those of the parent's; smaller feed-forward
    networks its most important neurons. What the parent lacks stays as it is.
    """
    copy_matching(network, parent.state_dict())
    copy_positions(network, parent.state_dict())
    if isinstance(network, PretrainedNetwork) and isinstance(parent, PretrainedNetwork):
        copy_tokens(network, parent)
    for block, source in zip(network.blocks, parent.blocks, strict=True):
        inherit_attention(block, source)
        ours, theirs = block.feed_forward, source.feed_forward
        if ours is not None and theirs is not None:
            keep_neurons(ours, theirs, _important_neurons(theirs, ours.hidden))


def _important_neurons(feed_forward: FeedForward, count: int) -> Tensor:
    gate = None if feed_forward.gate_proj is None else feed_forward.gate_proj.weight
    return important_neurons(feed_forward.up_proj.weight, feed_forward.down_proj.weight, count, gate=gate)


def inherit_attention(block: Block, source: Block) -> None:
    """Copy all weights of a mechanism of the same kind and sizes; else the projections, where both have them."""
    ours, theirs = block.mechanism, source.mechanism
    if type(ours) is type(theirs) and _shapes(ours) == _shapes(theirs):
        ours.load_state_dict(theirs.state_dict())
    elif isinstance(ours, QKVMechanism) and isinstance(theirs, QKVMechanism):
        projections = (theirs.query, theirs.key, theirs.value, theirs.output)
        ours.load_projections(*((each.weight, each.bias) for each in projections))


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


@torch.no_grad()
def keep_neurons(feed_forward: FeedForward, source: FeedForward, kept: Tensor) -> None:
    """Copy the hidden features ``kept`` of another feed-forward network."""
    for ours, theirs in ((feed_forward.up_proj, source.up_proj), (feed_forward.gate_proj, source.gate_proj)):
        if ours is not None and theirs is not None:
            ours.weight.copy_(theirs.weight[kept])
            if theirs.bias is not None:
                ours.bias.copy_(theirs.bias[kept])
    feed_forward.down_proj.weight.copy_(source.down_proj.weight[:, kept])
    if source.down_proj.bias is not None:
        feed_forward.down_proj.bias.copy_(source.down_proj.bias)


@torch.no_grad()
def copy_positions(network: BlockNetwork, weights: Mapping[str, Tensor]) -> None:
    """Copy the first rows of longer tables of positions."""
    for name, own in network.state_dict().items():
        if "positions" in name.split(".") and name in weights and own.dim() > 1:
            own.copy_(weights[name][: len(own)])


@torch.no_grad()
def copy_tokens(network: PretrainedNetwork, parent: PretrainedNetwork) -> None:
    """Copy the embeddings of the tokens that a network with a trimmed vocabulary has in common with its parent."""
    if network.kept_ids == parent.kept_ids or network.kept_ids is None or not network.tokens or not parent.tokens:
        return
    rows = {number: row for row, number in enumerate(parent.kept_ids or range(parent.tokens.num_embeddings))}
    for row, number in enumerate(network.kept_ids):
        if number in rows:
            network.tokens.weight[row].copy_(parent.tokens.weight[rows[number]])


@torch.no_grad()
def copy_matching(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights that a module has under the same name and with the same shape."""
    own = module.state_dict()
    for name, value in weights.items():
        if name in own and own[name].shape == value.shape:
            own[name].copy_(value)
