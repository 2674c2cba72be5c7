"""A transformer encoder with one output per token or one per sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.models.block import Block
from spaces.models.config import ModelConfig
from spaces.models.embedding import Embedding
from spaces.models.network import BlockNetwork
from spaces.models.trunk import Trunk
from spaces.tasks import Batch, TaskSpec

POOLINGS = ("mean", "max", "first")


class Encoder(BlockNetwork):
    """An embedding, a trunk and a head.

    Args:
        mechanisms: one per block, first block first.
        config: the settings that all models share.
        spec: the task's specification.
        pooling: over the tokens, where a sequence has one output: ``mean``, ``max`` or ``first``.
    """

    config_class: ClassVar = ModelConfig

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        config: ModelConfig,
        *,
        spec: TaskSpec,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        if spec.answer_length is not None:
            raise ValueError("this task's answer is a sequence of its own: it needs spaces.models.seq2seq.Seq2Seq")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r}: it must be {', '.join(POOLINGS)}")
        if spec.per_token and pooling != "mean":
            raise ValueError(f"pooling={pooling!r}: this task has an output per token, so nothing is pooled")
        self.pooling = None if spec.per_token else pooling
        self.embedding = Embedding(spec, config)
        self.trunk = Trunk(mechanisms, config, length=-(-spec.length // config.stride), causal=spec.causal)
        self.head = nn.Linear(config.width, spec.classes)

    @property
    def blocks(self) -> Sequence[Block]:
        """See :class:`BlockNetwork`."""
        return self.trunk.blocks

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """See :class:`BlockNetwork`."""
        x, padding = self.embedding(batch.inputs, batch.padding)
        return self.trunk.before_blocks(x, padding), padding

    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """See :class:`BlockNetwork`."""
        x = self.trunk.norm(x)
        if self.pooling is not None:
            x = pool(x, padding, self.pooling)
        logits: Tensor = self.head(x)
        return logits


def pool(x: Tensor, padding: Tensor | None, pooling: str) -> Tensor:
    """``(batch, n, width)`` to ``(batch, width)``, ignoring padding; the ``mean`` of an all-padding sample is 0."""
    if pooling == "first":
        return x[:, 0]
    if padding is None:
        return x.mean(1) if pooling == "mean" else x.amax(1)
    kept = ~padding[..., None]
    if pooling == "max":
        return x.masked_fill(~kept, -torch.inf).amax(1)
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)
