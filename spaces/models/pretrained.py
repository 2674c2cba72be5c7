"""Encoders that start from a trained checkpoint, of which layers, attention and feed-forward neurons may be left out.

Blocks are post-norm, as in BERT (Devlin et al., 2019). With nothing left out and softmax attention the network computes
what ``transformers`` computes from the same checkpoint. Which layers a shallower network takes: evenly spaced ones, as
in DistilBERT (Sanh et al., 2019), or the first ones. Of the feed-forward networks, the neurons with the largest
product of the norms of their weights are kept (as by magnitude in Li et al., "Pruning Filters for Efficient ConvNets",
2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.attention.projections import QKVMechanism
from spaces.dimensions import check_number
from spaces.models.block import Block, FeedForward
from spaces.models.checkpoint import Checkpoint
from spaces.models.encoder import pool
from spaces.models.network import BlockNetwork
from spaces.tasks import Batch, TaskSpec

Weights = Mapping[str, tuple[Tensor, Tensor]]  # weight and bias of each part of a layer
Layers = Literal["spread", "first"]
Pooling = Literal["mean", "max", "first"]


class PretrainedEncoder(BlockNetwork):
    """A checkpoint's embedding and some of its layers, a pooling over the tokens, and a new head.

    Args:
        mechanisms: one per block. Those with projections of queries, keys and values take over the checkpoint's.
        spec: the task's specification.
        checkpoint: see :class:`~spaces.models.checkpoint.Checkpoint`.
        width: the checkpoint's.
        layers: which layers are kept, if there are fewer mechanisms than layers: ``spread`` or ``first``.
        feed_forward: share of the hidden features of the feed-forward networks that is kept, of all blocks or by block
            number; with 0 only the residual connection and the norm are left, and of a block without attention nothing.
        pooling: over the tokens: ``mean``, ``max`` or ``first``.
        dropout: dropout rate after the embedding, each mechanism and each feed-forward network, and before the head.
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
        super().__init__()
        source = Checkpoint(checkpoint)
        shares = _shares(feed_forward, len(mechanisms))
        check_number(0, 0.99, dropout=dropout)
        for name, value, accepted in (("layers", layers, get_args(Layers)), ("pooling", pooling, get_args(Pooling))):
            if value not in accepted:
                raise ValueError(f"{name}={value!r}: it must be {', '.join(accepted)}")
        _check_fit(source, spec, mechanisms, width)
        self.pooling = pooling
        self.tokens = nn.Embedding(source.vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(spec.length, width))
        self.embedding_norm = nn.LayerNorm(width, eps=source.eps)
        self.layers: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            _block(mechanism, source, kept_features(share, source.hidden), dropout)
            for mechanism, share in zip(mechanisms, shares, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, spec.classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.tokens.weight.requires_grad_(train_embeddings)
        if not self.head.weight.is_meta:
            self._load(source, kept_layers(source.depth, len(mechanisms), layers))

    @torch.no_grad()
    def _load(self, source: Checkpoint, numbers: Sequence[int]) -> None:
        tokens, positions, norm = source.embeddings()
        self.tokens.weight.copy_(tokens)
        self.positions.copy_(positions[: len(self.positions)])
        _copy(self.embedding_norm, norm)
        for block, number in zip(self.blocks, numbers, strict=True):
            load_block(block, source.layer(number))

    @property
    def blocks(self) -> Sequence[Block]:
        """See :class:`BlockNetwork`."""
        return self.layers

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """See :class:`BlockNetwork`."""
        x = self.tokens(batch.inputs) + self.positions[: batch.inputs.shape[1]]
        return self.dropout(self.embedding_norm(x)), batch.padding

    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """See :class:`BlockNetwork`."""
        logits: Tensor = self.head(self.dropout(pool(x, padding, self.pooling)))
        return logits


def _block(mechanism: Mechanism, source: Checkpoint, hidden: int, dropout: float) -> Block:
    if isinstance(mechanism, QKVMechanism):
        mechanism.add_biases()
    return Block(
        mechanism,
        FeedForward(source.width, hidden, source.activation) if hidden else None,
        norm=lambda: nn.LayerNorm(source.width, eps=source.eps),
        dropout=dropout,
        norm_first=False,
    )


@torch.no_grad()
def load_block(block: Block, weights: Weights) -> None:
    """Take over the weights of a layer, of the feed-forward network those of the most important neurons."""
    if isinstance(block.mechanism, QKVMechanism):
        block.mechanism.load_projections(*(weights[name] for name in ("query", "key", "value", "output")))
    if block.feed_forward is not None:
        (up, up_bias), (down, down_bias) = weights["up_proj"], weights["down_proj"]
        kept = important_neurons(up, down, block.feed_forward.hidden)
        _copy(block.feed_forward.up_proj, (up[kept], up_bias[kept]))
        _copy(block.feed_forward.down_proj, (down[:, kept], down_bias))
    for name in ("mechanism_norm", "feed_forward_norm"):
        if (norm := getattr(block, name)) is not None:
            _copy(norm, weights[name])


def kept_features(share: float, hidden: int) -> int:
    """How many of ``hidden`` features a share is: at least one, unless the share is 0."""
    return max(1, round(share * hidden)) if share else 0


def _shares(feed_forward: float | Mapping[str, float], blocks: int) -> list[float]:
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


def important_neurons(up: Tensor, down: Tensor, count: int) -> Tensor:
    """The indices, ascending, of the ``count`` hidden features with the largest weights.

    Args:
        up: ``(hidden, width)``.
        down: ``(width, hidden)``.
        count: at most ``hidden``.
    """
    importance = up.norm(dim=1) * down.norm(dim=0)
    return importance.topk(count).indices.sort().values


def _check_fit(source: Checkpoint, spec: TaskSpec, mechanisms: Sequence[Mechanism], width: int) -> None:
    if spec.vocabulary is None or spec.per_token or spec.answer_length is not None or spec.subtasks:
        raise ValueError("a pretrained encoder classifies texts: this task is another one")
    if spec.vocabulary > source.vocabulary:
        sizes = f"{spec.vocabulary} tokens, the checkpoint's table has {source.vocabulary}"
        raise ValueError(
            f"the task has {sizes}; take the checkpoint's tokenizer, space.input.tokens={source.tokenizer}"
        )
    if spec.length > source.positions:
        raise ValueError(f"length={spec.length}: the checkpoint has {source.positions} positions")
    if len(mechanisms) > source.depth:
        raise ValueError(f"depth={len(mechanisms)}: the checkpoint has {source.depth} layers")
    if width != source.width:
        raise ValueError(f"width={width}: it must be the checkpoint's, {source.width}")
    for mechanism in mechanisms:
        heads = mechanism.width // mechanism.head_dim
        if heads != source.heads:
            raise ValueError(f"heads={heads}: it must be the checkpoint's, {source.heads}")
        if isinstance(mechanism, QKVMechanism) and mechanism.kv_heads != mechanism.heads:
            raise ValueError(
                f"kv_heads={mechanism.kv_heads}: the checkpoint has {source.heads} heads of keys and values"
            )


def _copy(module: nn.Linear | nn.LayerNorm, weights: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        module.weight.copy_(weights[0])
        module.bias.copy_(weights[1])
