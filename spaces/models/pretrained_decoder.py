"""Language models that start from a checkpoint, such as GPT-2 or Llama, and continue texts in its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import DecodeCache, Mechanism
from spaces.models.checkpoint import Checkpoint
from spaces.models.language_model import LanguageModel, check_decodes
from spaces.models.pretrained import PretrainedNetwork
from spaces.models.pretrained_checks import check_continues
from spaces.models.pretrained_layers import Layers
from spaces.tasks import TaskSpec


class PretrainedCache(NamedTuple):
    """What a network keeps of the tokens so far."""

    position: int  # of the next token, from 0
    blocks: tuple[DecodeCache, ...]  # one per block


class PretrainedDecoder(PretrainedNetwork, LanguageModel):
    """A checkpoint's embedding and some of its layers, and its own head.

    Where a checkpoint has the same table for embedding and head, the network has it once. Of a table with more rows
    than the task has tokens, the first ones are taken.

    Args:
        mechanisms: as of :class:`~spaces.models.pretrained.PretrainedNetwork`; they can decode token by token.
        spec: likewise.
        checkpoint: see :class:`~spaces.models.checkpoint.Checkpoint`.
        width: likewise.
        layers: likewise.
        feed_forward: likewise.
        dropout: likewise.
        train_embeddings: whether the table of token embeddings is trained, and a head that shares it.

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
        dropout: float = 0.1,
        train_embeddings: bool = True,
    ) -> None:
        source = Checkpoint(checkpoint)
        check_continues(source, spec)
        check_decodes(mechanisms)
        super().__init__(
            mechanisms,
            spec=spec,
            source=source,
            rows=None if source.ties_head else spec.classes,
            width=width,
            layers=layers,
            feed_forward=feed_forward,
            dropout=dropout,
        )
        self.head = nn.Linear(width, spec.classes, bias=False)
        table = self.head if self.tokens is None else self.tokens
        table.weight.requires_grad_(train_embeddings)
        if not self.head.weight.is_meta:
            self.load(source)

    @torch.no_grad()
    def load(self, source: Checkpoint) -> None:
        """See :class:`~spaces.models.pretrained.PretrainedNetwork`; with the head."""
        super().load(source)
        self.head.weight.copy_(source.output_table()[: self.head.out_features])

    def token_vectors(self, ids: Tensor) -> Tensor:
        """The rows of the table of token embeddings, which may be the weight of the head."""
        return F.embedding(ids, self.head.weight) if self.tokens is None else super().token_vectors(ids)

    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """See :class:`~spaces.models.network.BlockNetwork`."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def init_cache(self, batch: int) -> PretrainedCache:
        """See :class:`LanguageModel`."""
        return PretrainedCache(0, tuple(block.mechanism.init_cache(batch) for block in self.blocks))

    def decode_step(self, ids: Tensor, cache: PretrainedCache) -> tuple[Tensor, PretrainedCache]:
        """See :class:`LanguageModel`."""
        x, caches = self.embed_tokens(ids[:, None], cache.position)[:, 0], []
        for block, block_cache in zip(self.blocks, cache.blocks, strict=True):
            x, block_cache = block.decode_step(x, block_cache)
            caches.append(block_cache)
        return self.classify(x, None), PretrainedCache(cache.position + 1, tuple(caches))

    def prefill(self, prompt: Tensor) -> tuple[Tensor, PretrainedCache]:
        """See :class:`LanguageModel`."""
        x, caches = self.embed_tokens(prompt), []
        for block in self.blocks:
            x, cache = block.prefill(x)
            caches.append(cache)
        return self.classify(x[:, -1], None), PretrainedCache(prompt.shape[1], tuple(caches))
