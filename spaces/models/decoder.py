"""A causal transformer over token ids that can go on writing: after each token it gives what may come next.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spaces.attention import Mechanism
from spaces.models.encoder import Encoder
from spaces.models.trunk import Past
from spaces.tasks import TaskSpec


class Decoder(Encoder):
    """The same network, for tasks that are causal and whose answers are the next tokens; every mechanism can decode.

    Args:
        mechanisms: one a block, first block first.
        spec: the task's.
        width: features per token.
        feed_forward: hidden features of the feed-forward network as a multiple of ``width``.
        dropout: share of features dropped after each mechanism and feed-forward network in training.
        activation: of the feed-forward network: ``gelu``, ``relu`` or ``swiglu``.
        positions: ``learned``, ``sinusoidal`` or ``none``.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        *,
        spec: TaskSpec,
        width: int,
        feed_forward: float = 2.0,
        dropout: float = 0.0,
        activation: str = "gelu",
        positions: str = "learned",
    ) -> None:
        if not spec.causal or not spec.per_token or spec.vocabulary != spec.classes:
            raise ValueError("a decoder needs a task that asks for the next token, such as text with predict=next_byte")
        for mechanism in mechanisms:
            mechanism.begin(1)  # says why, if it cannot decode
        super().__init__(
            mechanisms,
            spec=spec,
            width=width,
            feed_forward=feed_forward,
            dropout=dropout,
            activation=activation,
            positions=positions,
        )

    def begin(self, batch: int) -> Past:
        """What there is before the first token of ``batch`` sequences."""
        return self.trunk.begin(batch)

    def step(self, ids: Tensor, past: Past) -> tuple[Tensor, Past]:
        """One token id a sequence, ``(batch,)``, to the logits of the next, ``(batch, classes)``, and the next past."""
        x, past = self.trunk.step(self.embedding(ids[:, None], None)[:, 0], past)
        return self.head(x), past

    @torch.no_grad()
    def generate(
        self, prompt: Tensor, tokens: int, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Go on from ``prompt`` ``(batch, n)``, ``n >= 1``, by ``tokens`` ids: ``(batch, tokens)``.

        With ``temperature`` 0 the likeliest is taken; else one is drawn, by ``generator``, from the softmax of the
        logits over it.
        """
        past = self.begin(len(prompt))
        for ids in prompt.unbind(1):
            logits, past = self.step(ids, past)
        written: list[Tensor] = []
        while len(written) < tokens:
            if temperature:
                ids = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
            else:
                ids = logits.argmax(-1)
            written.append(ids)
            if len(written) < tokens:
                logits, past = self.step(ids, past)
        return torch.stack(written, dim=1)
