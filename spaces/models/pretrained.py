"""Networks that start from a checkpoint, of which layers, attention and feed-forward neurons may be left out.

With nothing left out and softmax attention they compute what ``transformers`` computes from the same checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.dimensions import check_number
from spaces.models.block import Block
from spaces.models.checkpoint import Checkpoint
from spaces.models.encoder import pool
from spaces.models.network import BlockNetwork
from spaces.models.patch_embedding import PatchEmbedding
from spaces.models.pretrained_checks import check_classifies, check_fit
from spaces.models.pretrained_layers import (
    Layers,
    block_of,
    copy_weights,
    kept_features,
    kept_layers,
    load_block,
    norm_of,
    shares_of,
)
from spaces.tasks import Batch, TaskSpec

Pooling = Literal["mean", "max", "first"]


class PretrainedNetwork(BlockNetwork):
    """A checkpoint's embedding and some of its layers, without a head.

    Args:
        mechanisms: one per block. Those with projections of queries, keys and values take over the checkpoint's.
        spec: the task's specification.
        source: the checkpoint.
        rows: of the table of token embeddings; None where the subclass keeps the table, or where inputs are images.
        width: the checkpoint's.
        layers: which layers are kept, if there are fewer mechanisms than layers: ``spread`` or ``first``.
        feed_forward: share of the hidden features of the feed-forward networks that is kept, of all blocks or by block
            number; with 0 only the residual connection and the norm are left, and of a block without attention nothing.
        dropout: dropout rate after the embedding, each mechanism and each feed-forward network.

    Raises:
        ValueError: the checkpoint does not fit the task or a setting.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        *,
        spec: TaskSpec,
        source: Checkpoint,
        rows: int | None,
        width: int,
        layers: Layers,
        feed_forward: float | Mapping[str, float],
        dropout: float,
    ) -> None:
        super().__init__()
        shares = shares_of(feed_forward, len(mechanisms))
        check_number(0, 0.99, dropout=dropout)
        if layers not in get_args(Layers):
            raise ValueError(f"layers={layers!r}: it must be {', '.join(get_args(Layers))}")
        check_fit(source, spec, mechanisms, width)
        self.kept_ids = spec.kept_ids
        self.patches = PatchEmbedding(source, spec) if source.image else None
        self.tokens = None if rows is None else nn.Embedding(rows, width)
        positions = source.family.positions and not source.image
        self.positions = nn.Parameter(torch.zeros(spec.length, width)) if positions else None
        self.embedding_norm = norm_of(source) if source.family.embedding_norm else None
        self.layers: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            block_of(mechanism, source, kept_features(share, source.hidden), dropout)
            for mechanism, share in zip(mechanisms, shares, strict=True)
        )
        self.final_norm = norm_of(source) if source.family.final_norm else None
        self.dropout = nn.Dropout(dropout)
        self._numbers = kept_layers(source.depth, len(mechanisms), layers)

    @torch.no_grad()
    def load(self, source: Checkpoint) -> None:
        """Take over the weights, but those of a head.

        Raises:
            ValueError: some are missing, or have another shape.
        """
        if self.patches is not None:
            self.patches.load(source)
        if self.tokens is not None:
            tokens = source.tokens()
            rows = range(self.tokens.num_embeddings) if self.kept_ids is None else self.kept_ids
            self.tokens.weight.copy_(tokens[list(rows)])
        if self.positions is not None:
            self.positions.copy_(source.position_table()[: len(self.positions)])
        for norm, name in (
            (self.embedding_norm, source.family.embedding_norm),
            (self.final_norm, source.family.final_norm),
        ):
            if norm is not None:
                copy_weights(norm, source.norm(name))
        for block, number in zip(self.blocks, self._numbers, strict=True):
            load_block(block, source.layer(number))

    @property
    def blocks(self) -> Sequence[Block]:
        """See :class:`BlockNetwork`."""
        return self.layers

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """See :class:`BlockNetwork`."""
        if self.patches is not None:
            return self.dropout(self.patches(batch.inputs)), None
        return self.embed_tokens(batch.inputs), batch.padding

    def embed_tokens(self, ids: Tensor, start: int = 0) -> Tensor:
        """Ids ``(batch, n)``, of which the first one is at position ``start``, to ``(batch, n, width)``."""
        x = self.token_vectors(ids)
        if self.positions is not None:
            x = x + self.positions[start : start + ids.shape[1]]
        output: Tensor = self.dropout(x if self.embedding_norm is None else self.embedding_norm(x))
        return output

    def token_vectors(self, ids: Tensor) -> Tensor:
        """The rows of the table of token embeddings."""
        assert self.tokens is not None
        vectors: Tensor = self.tokens(ids)
        return vectors

    def features(self, x: Tensor) -> Tensor:
        """The hidden states after the last norm."""
        return x if self.final_norm is None else self.final_norm(x)


class PretrainedEncoder(PretrainedNetwork):
    """A checkpoint's embedding and some of its layers, a pooling over the tokens, and a new head.

    Args:
        mechanisms: as of :class:`PretrainedNetwork`.
        spec: likewise.
        checkpoint: see :class:`~spaces.models.checkpoint.Checkpoint`.
        width: likewise.
        layers: likewise.
        feed_forward: likewise.
        pooling: over the tokens: ``mean``, ``max`` or ``first``.
        dropout: likewise, and before the head.
        train_embeddings: whether the table of token embeddings is trained. It has most of a small checkpoint's weights.

    Raises:
        ValueError: the checkpoint is invalid, or does not fit the task or another setting.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        *,
        spec: TaskSpec,
        checkpoint: str,
        width: int,
        layers: Layers = "spread",
        feed_forward: float | Mapping[str, float] = 1.0,
        pooling: Pooling = "mean",
        dropout: float = 0.1,
        train_embeddings: bool = False,
    ) -> None:
        source = Checkpoint(checkpoint)
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling={pooling!r}: it must be {', '.join(get_args(Pooling))}")
        check_classifies(source, spec)
        rows = source.vocabulary if spec.kept_ids is None else len(spec.kept_ids)
        super().__init__(
            mechanisms,
            spec=spec,
            source=source,
            rows=None if source.image else rows,
            width=width,
            layers=layers,
            feed_forward=feed_forward,
            dropout=dropout,
        )
        self.pooling = pooling
        self.head = nn.Linear(width, spec.classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if self.tokens is not None:
            self.tokens.weight.requires_grad_(train_embeddings)
        if not self.head.weight.is_meta:
            self.load(source)

    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """See :class:`BlockNetwork`."""
        logits: Tensor = self.head(self.dropout(pool(self.features(x), padding, self.pooling)))
        return logits
