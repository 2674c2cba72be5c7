"""The encoder-decoder transformer, from one sequence to another.

Vaswani et al., "Attention Is All You Need", 2017, figure 1, with pre-norm blocks. Mechanisms have three roles: they mix
the source tokens in the encoder, they mix the output tokens in the decoder (``decoder``, causal), and they let output
tokens attend to the source (``cross``). Encoder and decoder have the same number of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, SourceCache
from spaces.models.config import ModelConfig
from spaces.models.embedding import Embedding
from spaces.models.trunk import Trunk
from spaces.tasks import BOS, EOS, Batch, TaskSpec


class Seq2Seq(nn.Module):
    """An encoder over the inputs, and a decoder that generates token by token.

    Args:
        mechanisms: the encoder's, one per block.
        config: the settings that all models share.
        decoder_mechanisms: the decoder's, causal, one per block.
        cross_mechanisms: the decoder's cross-attention, one per block.
        spec: the task's specification, with an ``answer_length``.
    """

    config_class: ClassVar = ModelConfig

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        config: ModelConfig,
        *,
        decoder_mechanisms: Sequence[Mechanism],
        cross_mechanisms: Sequence[Mechanism],
        spec: TaskSpec,
    ) -> None:
        super().__init__()
        if spec.answer_length is None:
            raise ValueError("this task's answer is no sequence of its own: it needs spaces.models.encoder.Encoder")
        self.embedding = Embedding(spec, config)
        self.encoder = Trunk(mechanisms, config, length=-(-spec.length // config.stride), causal=False)
        self.answer_embedding = nn.Embedding(spec.classes, config.width)
        self.decoder = Trunk(
            decoder_mechanisms, config, length=spec.answer_length, causal=True, cross_mechanisms=cross_mechanisms
        )
        self.head = nn.Linear(config.width, spec.classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``(batch, n, classes)`` of the token after each of ``batch.decoder_input_ids`` ``(batch, n)``."""
        assert batch.decoder_input_ids is not None, "the task has an answer_length"
        x = self.answer_embedding(batch.decoder_input_ids)
        logits: Tensor = self.head(self.decoder(x, None, self._encode(batch)))
        return logits

    @torch.no_grad()
    def generate(self, batch: Batch, max_new_tokens: int, *, ignore_eos: bool = False) -> Tensor:
        """Greedy decoding: ids ``(batch, n)``, ``n <= max_new_tokens``.

        It stops when every sequence has reached ``EOS``; after its ``EOS`` a sequence is filled up with ``EOS``. With
        ``ignore_eos`` it always computes ``max_new_tokens`` steps, as a latency measurement needs.
        """
        sources, cache = self._encode(batch), self.decoder.init_cache(len(batch.inputs))
        ids = torch.full((len(batch.inputs),), BOS, device=batch.inputs.device)
        ended = torch.zeros_like(ids, dtype=torch.bool)
        generated: list[Tensor] = []
        while len(generated) < max_new_tokens and (ignore_eos or not ended.all()):
            x, cache = self.decoder.decode_step(self.answer_embedding(ids), cache, sources)
            ids = self.head(x).argmax(-1).masked_fill(ended, EOS)
            ended = ended | (ids == EOS)
            generated.append(ids)
        return torch.stack(generated, dim=1)

    def _encode(self, batch: Batch) -> tuple[SourceCache, ...]:
        """The source cache of each decoder block, computed once from the encoder's output."""
        x, padding = self.embedding(batch.inputs, batch.padding)
        return self.decoder.encode_source(self.encoder(x, padding), padding)
