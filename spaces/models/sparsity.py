"""Linear layers of the blocks some of whose weights are 0, by magnitude: any of them, or two of every four.

Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015: in each layer the weights with
the smallest absolute values are set to 0 and stay there, while the others go on learning. With 2:4 sparsity, of four
consecutive inputs of an output feature the two with the largest absolute weights are kept: Mishra et al., "Accelerating
Sparse Deep Neural Networks", 2021 (arXiv:2104.08378).

Zeros are stored and multiplied like other weights, as kernels for CPUs are dense: latency does not follow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.models.block import Block

GROUPS = "2:4"
DENSE = 0
Sparsity = float | str


def check_sparsity(sparsity: object) -> None:
    """Raise ValueError unless it is a share of the weights, or 2:4."""
    is_share = isinstance(sparsity, int | float) and not isinstance(sparsity, bool) and 0 <= sparsity < 1
    if not is_share and sparsity != GROUPS:
        raise ValueError(
            f"sparsity={sparsity!r}: it must be the share of the weights that are 0, at least 0 and below 1, or"
            f" {GROUPS!r}, in YAML with quotation marks"
        )


def sparse_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers of all blocks, each once."""
    blocks = (module for module in network.modules() if isinstance(module, Block))
    return list(dict.fromkeys(each for block in blocks for each in block.modules() if isinstance(each, nn.Linear)))


def smallest(weight: Tensor, sparsity: Sparsity) -> Tensor:
    """Which weights become 0, ``(outputs, inputs)`` bool: as many as asked for, with the smallest absolute values.

    Raises:
        ValueError: groups of four do not divide the inputs.
    """
    values = weight.detach().abs()
    if sparsity == GROUPS:
        if weight.shape[1] % 4:
            raise ValueError(f"sparsity={GROUPS!r}: a linear layer has {weight.shape[1]} inputs; 4 must divide them")
        groups, count = values.unflatten(1, (-1, 4)), 2
    else:
        groups, count = values.flatten(), round(float(sparsity) * weight.numel())
    indices = groups.topk(count, largest=False).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, indices, value=True).reshape(weight.shape)


@torch.no_grad()
def prune(network: nn.Module, sparsity: Sparsity) -> None:
    """Set weights to 0; those that are 0 already count."""
    if sparsity != DENSE:
        for layer in sparse_layers(network):
            layer.weight.masked_fill_(smallest(layer.weight, sparsity), 0.0)


def sparsify(network: nn.Module, sparsity: Sparsity) -> nn.Module:
    """Set weights to 0, and let none that is 0 learn: such weights have no gradient, also those loaded later.

    Without a gradient an optimizer of moments and decoupled weight decay leaves them at exactly 0.

    Raises:
        ValueError: the sparsity is unknown, or does not fit a layer.
    """
    check_sparsity(sparsity)
    prune(network, sparsity)
    if sparsity != DENSE:
        for layer in sparse_layers(network):
            _keep_zeros(layer.weight)
    return network


def _keep_zeros(weight: Tensor) -> None:
    weight.register_hook(lambda gradient: gradient.masked_fill(weight.detach() == 0, 0.0))


def zeros(network: nn.Module) -> int:
    """How many weights of the blocks' linear layers are 0."""
    return sum(int((layer.weight == 0).sum()) for layer in sparse_layers(network))
