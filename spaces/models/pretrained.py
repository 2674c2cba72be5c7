"""Classifiers that start from a checkpoint, of which layers, attention and feed-forward neurons may be left out.

With nothing left out and softmax attention the network computes what ``transformers`` computes from the same
checkpoint. Which layers a shallower network takes: evenly spaced ones, as in DistilBERT (Sanh et al., 2019), or the
first ones. Of the feed-forward networks, the neurons with the largest product of the norms of their weights are kept
(as by magnitude in Li et al., "Pruning Filters for Efficient ConvNets", 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.attention.kernels.pairs import PairsAttention
from spaces.attention.kernels.rotary import is_rotary
from spaces.attention.projections import QKVMechanism
from spaces.dimensions import check_number
from spaces.models.block import Block, FeedForward
from spaces.models.checkpoint import Checkpoint
from spaces.models.encoder import pool
from spaces.models.network import BlockNetwork
from spaces.models.patch_embedding import PatchEmbedding
from spaces.tasks import Batch, TaskSpec

Weights = tuple[Tensor, Tensor | None]  # weight and bias
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
        self.kept_ids, rows = spec.kept_ids, source.vocabulary if spec.kept_ids is None else len(spec.kept_ids)
        self.patches = PatchEmbedding(source, spec) if source.image else None
        self.tokens = None if source.image else nn.Embedding(rows, width)
        positions = source.family.positions and not source.image
        self.positions = nn.Parameter(torch.zeros(spec.length, width)) if positions else None
        self.embedding_norm = _norm(source) if source.family.embedding_norm else None
        self.layers: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            _block(mechanism, source, kept_features(share, source.hidden), dropout)
            for mechanism, share in zip(mechanisms, shares, strict=True)
        )
        self.final_norm = _norm(source) if source.family.final_norm else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, spec.classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if self.tokens is not None:
            self.tokens.weight.requires_grad_(train_embeddings)
        if not self.head.weight.is_meta:
            self._load(source, kept_layers(source.depth, len(mechanisms), layers))

    @torch.no_grad()
    def _load(self, source: Checkpoint, numbers: Sequence[int]) -> None:
        if self.patches is not None:
            self.patches.load(source)
        if self.tokens is not None:
            tokens, positions = source.embeddings()
            self.tokens.weight.copy_(tokens if self.kept_ids is None else tokens[list(self.kept_ids)])
            if self.positions is not None and positions is not None:
                self.positions.copy_(positions[: len(self.positions)])
        for norm, name in (
            (self.embedding_norm, source.family.embedding_norm),
            (self.final_norm, source.family.final_norm),
        ):
            if norm is not None:
                _copy(norm, source.norm(name))
        for block, number in zip(self.blocks, numbers, strict=True):
            load_block(block, source.layer(number))

    @property
    def blocks(self) -> Sequence[Block]:
        """See :class:`BlockNetwork`."""
        return self.layers

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """See :class:`BlockNetwork`."""
        if self.tokens is None:
            assert self.patches is not None
            return self.dropout(self.patches(batch.inputs)), None
        x = self.tokens(batch.inputs)
        if self.positions is not None:
            x = x + self.positions[: batch.inputs.shape[1]]
        return self.dropout(x if self.embedding_norm is None else self.embedding_norm(x)), batch.padding

    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """See :class:`BlockNetwork`."""
        x = x if self.final_norm is None else self.final_norm(x)
        logits: Tensor = self.head(self.dropout(pool(x, padding, self.pooling)))
        return logits


def _block(mechanism: Mechanism, source: Checkpoint, hidden: int, dropout: float) -> Block:
    family = source.family
    if isinstance(mechanism, QKVMechanism) and family.biases:
        mechanism.add_biases()
    return Block(
        mechanism,
        FeedForward(source.width, hidden, source.activation, bias=family.biases) if hidden else None,
        norm=lambda: _norm(source),
        dropout=dropout,
        norm_first=family.norm_first,
    )


def _norm(source: Checkpoint) -> nn.LayerNorm | nn.RMSNorm:
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
                _copy(projection, (weight[kept], None if bias is None else bias[kept]))
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


def _check_fit(source: Checkpoint, spec: TaskSpec, mechanisms: Sequence[Mechanism], width: int) -> None:
    if source.image is None:
        _check_texts(source, spec)
    if len(mechanisms) > source.depth:
        raise ValueError(f"depth={len(mechanisms)}: the checkpoint has {source.depth} layers")
    if width != source.width:
        raise ValueError(f"width={width}: it must be the checkpoint's, {source.width}")
    for mechanism in mechanisms:
        if mechanism.length != spec.length + source.class_tokens:
            given = f"class_tokens={mechanism.length - spec.length}"
            raise ValueError(f"{given}: it must be the checkpoint's, {source.class_tokens}")
        heads = mechanism.width // mechanism.head_dim
        if heads != source.heads:
            raise ValueError(f"heads={heads}: it must be the checkpoint's, {source.heads}")
        if isinstance(mechanism, QKVMechanism) and mechanism.kv_heads not in (mechanism.heads, source.kv_heads):
            has = f"the checkpoint has {source.kv_heads} heads of keys and values"
            raise ValueError(f"kv_heads={mechanism.kv_heads}: {has}")
        if mechanism.causal < source.causal:
            raise ValueError("causal=False: the checkpoint attends to earlier tokens only; give model.causal=true")
        if isinstance(mechanism, PairsAttention) and is_rotary(mechanism.rotary) != source.rotary:
            wanted = str(source.rotary).lower()
            raise ValueError(f"rope={str(not source.rotary).lower()}: for this checkpoint it must be {wanted}")


def _check_texts(source: Checkpoint, spec: TaskSpec) -> None:
    if spec.vocabulary is None or spec.per_token or spec.answer_length is not None or spec.subtasks:
        raise ValueError("this checkpoint classifies texts: this task is another one")
    if max(spec.vocabulary, 1 + max(spec.kept_ids or [0])) > source.vocabulary:
        sizes = f"{spec.vocabulary} tokens, the checkpoint's table has {source.vocabulary}"
        advice = f"take the checkpoint's tokenizer, space.input.tokens={source.tokenizer}"
        raise ValueError(f"the task has {sizes}; {advice}")
    if spec.length > source.positions:
        raise ValueError(f"length={spec.length}: the checkpoint has {source.positions} positions")


def _copy(module: nn.Linear | nn.LayerNorm | nn.RMSNorm, weights: Weights) -> None:
    weight, bias = weights
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            assert not isinstance(module, nn.RMSNorm)
            module.bias.copy_(bias)
