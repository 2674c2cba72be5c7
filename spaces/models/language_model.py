"""Networks that predict the next token of a text, and continue texts token by token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from spaces.attention import Mechanism
from spaces.models.network import BlockNetwork


class LanguageModel(BlockNetwork):
    """A causal network whose logits are those of the next token.

    Caches are immutable, as those of mechanisms are.
    """

    @abstractmethod
    def init_cache(self, batch: int) -> Any:
        """The cache before the first token of ``batch`` sequences."""

    @abstractmethod
    def decode_step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Token ids ``(batch,)`` to the logits of the next token, ``(batch, classes)``, and the next cache."""

    @abstractmethod
    def prefill(self, prompt: Tensor) -> tuple[Tensor, Any]:
        """The first token ids, ``(batch, n)``, to the logits of the next token, ``(batch, classes)``, and the cache."""

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


def check_decodes(mechanisms: Iterable[Mechanism]) -> None:
    """Raise ``ValueError``, with the reason, if one of the mechanisms cannot decode token by token."""
    for mechanism in mechanisms:
        mechanism.init_cache(1)
