"""A causal language model over token ids, which generates token by token.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spaces.attention import Mechanism
from spaces.models.config import ModelConfig
from spaces.models.encoder import Encoder
from spaces.models.language_model import LanguageModel, check_decodes
from spaces.models.trunk import TrunkCache
from spaces.tasks import TaskSpec


class DecoderCache(NamedTuple):
    """What a decoder keeps of the tokens so far."""

    recent: Tensor  # the latest token ids, at most as many as the longest n-gram of the embedding: (batch, n)
    trunk: TrunkCache


class Decoder(Encoder, LanguageModel):
    """The network of :class:`Encoder`, for next-token prediction, with mechanisms that can decode token by token.

    Args:
        mechanisms: one per block, first block first.
        config: the settings that all models share.
        spec: the task's specification.
    """

    def __init__(self, mechanisms: Sequence[Mechanism], config: ModelConfig, *, spec: TaskSpec) -> None:
        if not spec.causal or not spec.per_token or spec.vocabulary != spec.classes:
            raise ValueError("a decoder needs a task that asks for the next token, such as text with predict=next_byte")
        check_decodes(mechanisms)
        super().__init__(mechanisms, config, spec=spec)
        self.ngrams = config.ngrams

    def init_cache(self, batch: int) -> DecoderCache:
        """See :class:`LanguageModel`."""
        recent = torch.zeros(batch, 0, dtype=torch.int64, device=self.head.weight.device)
        return DecoderCache(recent, self.trunk.init_cache(batch))

    def decode_step(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """See :class:`LanguageModel`."""
        recent = torch.cat([cache.recent, ids[:, None]], dim=1)[:, -self.ngrams :]
        x, trunk = self.trunk.decode_step(self.embedding(recent, None)[0][:, -1], cache.trunk)
        return self.head(x), DecoderCache(recent, trunk)

    def prefill(self, prompt: Tensor) -> tuple[Tensor, DecoderCache]:
        """See :class:`LanguageModel`."""
        x, trunk = self.trunk.prefill(self.embedding(prompt, None)[0])
        return self.head(x), DecoderCache(prompt[:, -self.ngrams :], trunk)
