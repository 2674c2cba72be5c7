"""Encoders that start from a trained checkpoint, of which layers, attention and feed-forward neurons may be left out.

Blocks are post-norm, as in BERT (Devlin et al., 2019). With nothing left out and softmax attention the network computes
what ``transformers`` computes from the same checkpoint. Which layers a shallower network takes: evenly spaced ones, as
in DistilBERT (Sanh et al., 2019), or the first ones. Of the feed-forward networks, the neurons with the largest
product of the norms of their weights are kept (as by magnitude in Li et al., "Pruning Filters for Efficient ConvNets",
2017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.attention.projections import QKVMechanism
from spaces.dimensions import check_number
from spaces.models.checkpoint import Checkpoint
from spaces.models.encoder import pool
from spaces.tasks import Batch, TaskSpec

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
Weights = Mapping[str, tuple[Tensor, Tensor]]  # weight and bias of each part of a layer
Layers = Literal["spread", "first"]
Pooling = Literal["mean", "max", "first"]


class NoAttention(Mechanism):
    """No attention: only the residual connection and the norm are left of the sub-block."""

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


class PretrainedEncoder(nn.Module):
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
        self.blocks: Sequence[PostNormBlock] = nn.ModuleList(  # type: ignore[assignment]
            PostNormBlock(mechanism, source, kept_features(share, source.hidden), dropout)
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
            block.load(source.layer(number))

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``(batch, classes)``."""
        return self.classify(self.features(batch.inputs, batch.padding), batch.padding)

    def features(self, ids: Tensor, padding: Tensor | None) -> Tensor:
        """The last hidden states ``(batch, n, width)`` of token ids ``(batch, n)``."""
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, padding)
        return x

    def embed(self, ids: Tensor) -> Tensor:
        """The input of the first block ``(batch, n, width)``, of token ids ``(batch, n)``."""
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        embedded: Tensor = self.dropout(self.embedding_norm(x))
        return embedded

    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Logits ``(batch, classes)`` of the last hidden states."""
        logits: Tensor = self.head(self.dropout(pool(x, padding, self.pooling)))
        return logits


class PostNormBlock(nn.Module):
    """``x = norm(x + mechanism(x))``, then ``x = norm(x + feed_forward(x))``; nothing if it has neither of the two.

    Args:
        mechanism: mixes the tokens.
        source: the checkpoint that :meth:`load` takes weights of.
        hidden: hidden features of the feed-forward network; 0: there is none.
        dropout: dropout rate after both.
    """

    def __init__(self, mechanism: Mechanism, source: Checkpoint, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mechanism = mechanism
        self.has_attention = not isinstance(mechanism, NoAttention)
        self.has_feed_forward = hidden > 0
        if isinstance(mechanism, QKVMechanism):
            mechanism.add_biases()
        self.activation = ACTIVATIONS[source.activation]
        self.dropout = nn.Dropout(dropout)
        if self.has_attention or self.has_feed_forward:
            self.attention_norm = nn.LayerNorm(source.width, eps=source.eps)
            self.feed_forward_norm = nn.LayerNorm(source.width, eps=source.eps)
        if self.has_feed_forward:
            self.up_proj = nn.Linear(source.width, hidden)
            self.down_proj = nn.Linear(hidden, source.width)

    def load(self, weights: Weights) -> None:
        """Take over the weights of a layer, of the feed-forward network those of the most important neurons."""
        if isinstance(self.mechanism, QKVMechanism):
            self.mechanism.load_projections(*(weights[name] for name in ("query", "key", "value", "output")))
        if self.has_feed_forward:
            (up, up_bias), (down, down_bias) = weights["up_proj"], weights["down_proj"]
            kept = important_neurons(up, down, self.up_proj.out_features)
            _copy(self.up_proj, (up[kept], up_bias[kept]))
            _copy(self.down_proj, (down[:, kept], down_bias))
        if self.has_attention or self.has_feed_forward:
            _copy(self.attention_norm, weights["attention_norm"])
            _copy(self.feed_forward_norm, weights["feed_forward_norm"])

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """``x`` ``(batch, n, width)``, ``padding`` ``(batch, n)`` bool or None, to ``(batch, n, width)``."""
        if not self.has_attention and not self.has_feed_forward:
            return x
        return self.after_feed_forward(self.after_attention(x, padding))

    def after_attention(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The first half of :meth:`forward`."""
        output: Tensor = self.attention_norm(x + self.dropout(self.mechanism(x, padding)) if self.has_attention else x)
        return output

    def after_feed_forward(self, x: Tensor) -> Tensor:
        """The second half of :meth:`forward`."""
        output: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)) if self.has_feed_forward else x)
        return output

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward network alone, ``(..., width)`` to the same shape."""
        output: Tensor = self.down_proj(self.activation(self.up_proj(x)))
        return output


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
