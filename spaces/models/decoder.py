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
from spaces.models.trunk import TrunkCache
from spaces.tasks import TaskSpec


class DecoderCache(NamedTuple):
    """What a decoder keeps of the tokens so far."""

    recent: Tensor  # the latest token ids, at most as many as the longest n-gram of the embedding: (batch, n)
    trunk: TrunkCache


class Decoder(Encoder):
    """The network of :class:`Encoder`, for next-token prediction, with mechanisms that can decode token by token.

    Args:
        mechanisms: one per block, first block first.
        config: the settings that all models share.
        spec: the task's specification.
    """

    def __init__(self, mechanisms: Sequence[Mechanism], config: ModelConfig, *, spec: TaskSpec) -> None:
        if not spec.causal or not spec.per_token or spec.vocabulary != spec.classes:
            raise ValueError("a decoder needs a task that asks for the next token, such as text with predict=next_byte")
        for mechanism in mechanisms:
            mechanism.init_cache(1)  # raises, with the reason, if it cannot decode
        super().__init__(mechanisms, config, spec=spec)
        self.ngrams = config.ngrams

    def init_cache(self, batch: int) -> DecoderCache:
        """The cache before the first token of ``batch`` sequences."""
        recent = torch.zeros(batch, 0, dtype=torch.int64, device=self.head.weight.device)
        return DecoderCache(recent, self.trunk.init_cache(batch))

    def decode_step(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Token ids ``(batch,)`` to the logits of the next token, ``(batch, classes)``, and the next cache."""
        recent = torch.cat([cache.recent, ids[:, None]], dim=1)[:, -self.ngrams :]
        x, trunk = self.trunk.decode_step(self.embedding(recent, None)[0][:, -1], cache.trunk)
        return self.head(x), DecoderCache(recent, trunk)

    def prefill(self, prompt: Tensor) -> tuple[Tensor, DecoderCache]:
        """The first token ids, ``(batch, n)``, to the logits of the next token, ``(batch, classes)``, and the cache."""
        x, trunk = self.trunk.prefill(self.embedding(prompt, None)[0])
        return self.head(x), DecoderCache(prompt[:, -self.ngrams :], trunk)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue ``prompt`` ``(batch, n)``, ``n >= 1``, by ``max_new_tokens`` ids: ``(batch, max_new_tokens)``.

        With ``temperature`` 0 decoding is greedy; otherwise it samples, using ``generator``, from the softmax of the
        logits divided by the temperature.
        """
        logits, cache = self.prefill(prompt)
        generated: list[Tensor] = []
        while len(generated) < max_new_tokens:
            if temperature:
                ids = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
            else:
                ids = logits.argmax(-1)
            generated.append(ids)
            if len(generated) < max_new_tokens:
                logits, cache = self.decode_step(ids, cache)
        return torch.stack(generated, dim=1)
