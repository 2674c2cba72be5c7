"""Distillation from what is inside a teacher: hidden states, and the relations between those of tokens.

Hidden states: Jiao et al., "TinyBERT", 2020, section 3.1, without projections, as both networks have the same width.
Relations: Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019, between the tokens of an example, as in
Wang et al., "MiniLM", 2020. All losses are 0 for equal networks, padding does not count, and the teacher gets no
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from search.training.settings import TrainSettings
from spaces.models.network import BlockNetwork
from spaces.tasks import Batch


class Imitation:
    """``imitation(network, batch)``: the logits of a network, and the loss for its differences from a teacher's inside.

    Args:
        settings: with the weights of the losses.
        teacher: in evaluation mode, with as many blocks as the network and of the same width.
    """

    def __init__(self, settings: TrainSettings, teacher: BlockNetwork) -> None:
        self._hidden, self._relations, self._teacher = settings.hidden, settings.relations, teacher

    def __call__(self, network: BlockNetwork, batch: Batch) -> tuple[Any, Tensor]:
        """Logits as of ``network(batch)``, and the loss."""
        states, padding = network.hidden_states(batch)
        with torch.no_grad():
            expected, _ = self._teacher.to(states[0].device).hidden_states(batch)
        loss = states[0].new_zeros(())
        if self._hidden:
            loss = loss + self._hidden * hidden_loss(states, expected, padding)
        if self._relations:
            loss = loss + self._relations * relation_loss(states[-1], expected[-1], padding)
        return network.classify(states[-1], padding), loss


def hidden_loss(states: Sequence[Tensor], expected: Sequence[Tensor], padding: Tensor | None) -> Tensor:
    """The mean over blocks of :func:`relative_error`."""
    errors = [relative_error(state, each.detach(), padding) for state, each in zip(states, expected, strict=True)]
    return torch.stack(errors).mean()


def relation_loss(state: Tensor, expected: Tensor, padding: Tensor | None) -> Tensor:
    """Mean squared difference of the cosine similarities of pairs of tokens of an example.

    Args:
        state: ``(batch, n, width)``.
        expected: ``(batch, n, width of the teacher)``.
        padding: ``(batch, n)`` bool or None.
    """
    ours, theirs = (F.normalize(each, dim=-1) for each in (state, expected.detach()))
    difference = (ours @ ours.mT - theirs @ theirs.mT).square()
    if padding is None:
        return difference.mean()
    kept = ~padding
    return difference[kept[:, :, None] & kept[:, None]].mean()


def relative_error(output: Tensor, expected: Tensor, padding: Tensor | None) -> Tensor:
    """Squared error over the square of what is expected, both ``(batch, n, width)``, without padding."""
    if padding is not None:
        output, expected = output[~padding], expected[~padding]
    return (output - expected).square().sum() / expected.square().sum().clamp(min=1e-12)
