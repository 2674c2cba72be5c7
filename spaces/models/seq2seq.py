"""The encoder-decoder transformer: what one sequence says, in another.

Vaswani et al., "Attention Is All You Need", 2017, figure 1, with norms before what they normalise. Each encoder block
has a decoder block beside it. Mechanisms have three roles here: they mix the source, they mix the answer so far
(``decoder``, causal), and they look from the answer to the source (``cross``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory
from spaces.models.embedding import Embedding
from spaces.models.trunk import Trunk
from spaces.tasks import BOS, EOS, Batch, TaskSpec


class Seq2Seq(nn.Module):
    """An encoder over the inputs, and a decoder that answers token by token.

    Args:
        mechanisms: the encoder's, one a block.
        decoders: the decoder's, causal, as many.
        crosses: those that look at the encoder's output, as many.
        spec: the task's; it has an ``answer_length``.
        width: features per token.
        feed_forward: hidden features of the feed-forward network as a multiple of ``width``.
        dropout: share of features dropped after each mechanism and feed-forward network in training.
        activation: of the feed-forward network: ``gelu``, ``relu`` or ``swiglu``.
        positions: ``learned``, ``sinusoidal`` or ``none``.
        front_end: of frames: ``linear`` or ``convolution``.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        *,
        decoders: Sequence[Mechanism],
        crosses: Sequence[Mechanism],
        spec: TaskSpec,
        width: int,
        feed_forward: float = 2.0,
        dropout: float = 0.0,
        activation: str = "gelu",
        positions: str = "learned",
        front_end: str = "linear",
    ) -> None:
        super().__init__()
        if spec.answer_length is None:
            raise ValueError("this task's answer is no sequence of its own: it needs spaces.models.encoder.Encoder")
        self.embedding = Embedding(spec, width=width, front_end=front_end)
        trunk = partial(
            Trunk,
            width=width,
            feed_forward=feed_forward,
            dropout=dropout,
            activation=activation,
            positions=positions,
        )
        self.encoder = trunk(mechanisms, length=spec.length, causal=False)
        self.answer_embedding = nn.Embedding(spec.classes, width)
        self.decoder = trunk(decoders, length=spec.answer_length, causal=True, crosses=crosses)
        self.head = nn.Linear(width, spec.classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``(batch, n, classes)`` of the token after each of ``batch.prefix`` ``(batch, n)``."""
        assert batch.decoder_input_ids is not None, "the task has an answer_length"
        logits: Tensor = self.head(
            self.decoder(self.answer_embedding(batch.decoder_input_ids), None, self._read(batch))
        )
        return logits

    @torch.no_grad()
    def generate(self, batch: Batch, tokens: int, *, to_the_end: bool = False) -> Tensor:
        """The likeliest answers token by token, ``(batch, n)``, ``n <= tokens``.

        It stops when every answer has reached ``EOS``; behind one's ``EOS`` there is nothing but ``EOS``. With
        ``to_the_end`` it goes on to ``tokens`` whatever is said, as a measurement needs it.
        """
        memories, past = self._read(batch), self.decoder.begin(len(batch.inputs))
        ids = torch.full((len(batch.inputs),), BOS, device=batch.inputs.device)
        ended = torch.zeros_like(ids, dtype=torch.bool)
        written: list[Tensor] = []
        while len(written) < tokens and (to_the_end or not ended.all()):
            x, past = self.decoder.step(self.answer_embedding(ids), past, memories)
            ids = self.head(x).argmax(-1).masked_fill(ended, EOS)
            ended = ended | (ids == EOS)
            written.append(ids)
        return torch.stack(written, dim=1)

    def _read(self, batch: Batch) -> tuple[Memory, ...]:
        """What each decoder block keeps of what the encoder makes of the inputs; it looks at that token by token."""
        source = self.encoder(self.embedding(batch.inputs, batch.padding), batch.padding)
        return self.decoder.read(source, batch.padding)
