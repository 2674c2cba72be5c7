"""The encoder-decoder transformer, from one sequence to another.

Vaswani et al., "Attention Is All You Need", 2017, figure 1, with pre-norm blocks. Mechanisms have three roles: they mix
the source tokens in the encoder, they mix the output tokens in the decoder (``decoder``, causal), and they let output
tokens attend to the source (``cross``). Encoder and decoder have the same number of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, SourceCache
from spaces.models.config import ModelConfig
from spaces.models.embedding import Embedding
from spaces.models.pointer import PointerGenerator, PointerSource, latest_ids
from spaces.models.trunk import Trunk
from spaces.tasks import BOS, EOS, Batch, TaskSpec


@dataclass(frozen=True)
class Seq2SeqConfig(ModelConfig):
    """Settings of :class:`Seq2Seq`: those of every model, and two for ids that source and target share.

    Args:
        tied: one table embeds the source and the output tokens, and its rows are the weights of the output (Press and
            Wolf, "Using the Output Embedding to Improve Language Models", 2017).
        copies: output tokens may be copied from the source; see :mod:`spaces.models.pointer`.
    """

    tied: bool = False
    copies: bool = False


class EncodedSource(NamedTuple):
    """What the decoder needs of the sources."""

    caches: tuple[SourceCache, ...]  # one per block
    pointer: PointerSource | None  # with ``copies``


class Seq2Seq(nn.Module):
    """An encoder over the inputs, and a decoder that generates token by token.

    Args:
        mechanisms: the encoder's, one per block.
        config: the settings.
        decoder_mechanisms: the decoder's, causal, one per block.
        cross_mechanisms: the decoder's cross-attention, one per block.
        spec: the task's specification, with an ``answer_length``.

    Raises:
        ValueError: the settings do not fit the task.
    """

    config_class: ClassVar = Seq2SeqConfig

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        config: Seq2SeqConfig,
        *,
        decoder_mechanisms: Sequence[Mechanism],
        cross_mechanisms: Sequence[Mechanism],
        spec: TaskSpec,
    ) -> None:
        super().__init__()
        if spec.answer_length is None:
            raise ValueError("this task's answer is no sequence of its own: it needs spaces.models.encoder.Encoder")
        _check_ids(config, spec)
        self.embedding = Embedding(spec, config)
        self.encoder = Trunk(mechanisms, config, length=-(-spec.length // config.stride), causal=False)
        self.decoder = Trunk(
            decoder_mechanisms, config, length=spec.answer_length, causal=True, cross_mechanisms=cross_mechanisms
        )
        self.answer_embedding = None if config.tied else nn.Embedding(spec.classes, config.width)
        self.head = None if config.tied else nn.Linear(config.width, spec.classes)
        self.head_bias = nn.Parameter(torch.zeros(spec.classes)) if config.tied else None
        self.pointer = PointerGenerator(config.width) if config.copies else None
        # A source may contain other texts, each after ``BOS``.
        self.segments = nn.Embedding(2, config.width) if config.copies else None

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``(batch, n, classes)`` of the token after each of ``batch.decoder_input_ids`` ``(batch, n)``.

        With ``copies`` they are log-probabilities.
        """
        assert batch.decoder_input_ids is not None, "the task has an answer_length"
        ids, source = batch.decoder_input_ids, self._encode(batch)
        return self._output(self.decoder(self._embed(ids), None, source.caches), latest_ids(ids), source)

    @torch.no_grad()
    def generate(self, batch: Batch, max_new_tokens: int, *, ignore_eos: bool = False) -> Tensor:
        """Greedy decoding: ids ``(batch, n)``, ``n <= max_new_tokens``.

        It stops when every sequence has reached ``EOS``; after its ``EOS`` a sequence is filled up with ``EOS``. With
        ``ignore_eos`` it always computes ``max_new_tokens`` steps, as a latency measurement needs.
        """
        source, cache = self._encode(batch), self.decoder.init_cache(len(batch.inputs))
        ids = torch.full((len(batch.inputs),), BOS, device=batch.inputs.device)
        ended = torch.zeros_like(ids, dtype=torch.bool)
        generated: list[Tensor] = []
        latest = latest_ids(ids[:, None])
        while len(generated) < max_new_tokens and (ignore_eos or not ended.all()):
            x, cache = self.decoder.decode_step(self._embed(ids), cache, source.caches)
            ids = self._output(x[:, None], latest, source)[:, 0].argmax(-1).masked_fill(ended, EOS)
            ended = ended | (ids == EOS)
            generated.append(ids)
            latest = torch.cat([ids[:, None, None], latest[..., :-1]], dim=-1)
        return torch.stack(generated, dim=1)

    def _encode(self, batch: Batch) -> EncodedSource:
        """Computed once from the encoder's output."""
        x, padding = self.embedding(batch.inputs, batch.padding)
        if self.segments is not None:
            x = x + self.segments((batch.inputs == BOS).cumsum(1).clamp(max=1))
        x = self.encoder(x, padding)
        pointer = None if self.pointer is None else self.pointer.encode_source(x, batch.inputs, padding)
        return EncodedSource(self.decoder.encode_source(x, padding), pointer)

    def _embed(self, ids: Tensor) -> Tensor:
        """Output tokens ``(...)`` to ``(..., width)``."""
        if self.answer_embedding is None:
            return F.embedding(ids, self._tied_weight)
        embedded: Tensor = self.answer_embedding(ids)
        return embedded

    def _output(self, x: Tensor, latest: Tensor, source: EncodedSource) -> Tensor:
        """Features ``(batch, n, width)`` of output tokens, with their :func:`latest_ids`, to logits."""
        if self.head is None:
            # Scaled, so that the initial logits do not depend on the width.
            logits = F.linear(x / math.sqrt(x.shape[-1]), self._tied_weight, self.head_bias)
        else:
            logits = self.head(x)
        return logits if self.pointer is None else self.pointer(x, latest, logits, source.pointer)

    @property
    def _tied_weight(self) -> Tensor:
        weight: Tensor = self.embedding.first.weight  # type: ignore[assignment]
        return weight


def _check_ids(config: Seq2SeqConfig, spec: TaskSpec) -> None:
    for name in ("tied", "copies"):
        if not getattr(config, name):
            continue
        if spec.vocabulary != spec.classes:
            raise ValueError(f"{name}=true: source and target of this task do not share their ids")
        if config.stride > 1:
            raise ValueError(f"{name}=true, stride={config.stride}: the stride must be 1")
        if name == "tied" and config.ngrams > 1:
            raise ValueError(f"tied=true, ngrams={config.ngrams}: ngrams must be 1")
