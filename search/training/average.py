"""Exponential moving average of a network's weights, which is evaluated in place of the weights themselves.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; with exponential weights as in
Tarvainen and Valpola, "Mean teachers are better role models", 2017.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(nn.Module):
    """The average of the weights of ``network``, a network like it.

    At the first steps the decay is lower, ``(1 + step) / (10 + step)`` as in TensorFlow's ExponentialMovingAverage, as
    otherwise the initial weights would dominate a training of some hundreds of steps.

    Args:
        network: the network whose weights are averaged; it is copied.
        decay: per optimizer step, at least 0 and below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network, self.decay = copy.deepcopy(network).requires_grad_(False), decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Include the weights after an optimizer step; ``step`` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(self.network.parameters()), list(network.parameters()), step)
        for own, other in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(other)
