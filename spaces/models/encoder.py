"""A small pre-norm transformer over tokens, with one answer a token or one a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.models.embedding import Embedding
from spaces.models.trunk import Trunk
from spaces.tasks import Batch, TaskSpec

POOLINGS = ("mean", "max", "first")


class Encoder(nn.Module):
    """Embeddings, a trunk, and a head.

    Args:
        mechanisms: one a block, first block first.
        spec: the task's.
        width: features per token.
        feed_forward: hidden features of the feed-forward network as a multiple of ``width``.
        dropout: share of features dropped after each mechanism and feed-forward network in training.
        activation: of the feed-forward network: ``gelu``, ``relu`` or ``swiglu``.
        positions: ``learned``, ``sinusoidal`` or ``none``.
        front_end: of frames: ``linear`` or ``convolution``.
        pooling: where a sequence has one answer, of its tokens' features: ``mean``, ``max`` or ``first``.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        *,
        spec: TaskSpec,
        width: int,
        feed_forward: float = 2.0,
        dropout: float = 0.0,
        activation: str = "gelu",
        positions: str = "learned",
        front_end: str = "linear",
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        if spec.answer_length is not None:
            raise ValueError("this task's answer is a sequence of its own: it needs spaces.models.seq2seq.Seq2Seq")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r}: it must be {', '.join(POOLINGS)}")
        if spec.per_token and pooling != "mean":
            raise ValueError(f"pooling={pooling!r}: this task has an answer a token, so nothing is pooled")
        self.pooling = None if spec.per_token else pooling
        self.embedding = Embedding(spec, width=width, front_end=front_end)
        self.trunk = Trunk(
            mechanisms,
            width=width,
            length=spec.length,
            causal=spec.causal,
            feed_forward=feed_forward,
            dropout=dropout,
            activation=activation,
            positions=positions,
        )
        self.head = nn.Linear(width, spec.classes)

    def forward(self, batch: Batch) -> Tensor:
        """``(batch, n, classes)`` where the task has an answer a token, else ``(batch, classes)``."""
        x = self.trunk(self.embedding(batch.inputs, batch.padding), batch.padding)
        if self.pooling is not None:
            x = pooled(x, batch.padding, self.pooling)
        answers: Tensor = self.head(x)
        return answers


def pooled(x: Tensor, padding: Tensor | None, pooling: str) -> Tensor:
    """``(batch, n, width)`` to ``(batch, width)``, padding left out; of ``mean`` 0 where all is padding."""
    if pooling == "first":
        return x[:, 0]
    if padding is None:
        return x.mean(1) if pooling == "mean" else x.amax(1)
    kept = ~padding[..., None]
    if pooling == "max":
        return x.masked_fill(~kept, -torch.inf).amax(1)
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)
