"""Networks of an embedding, blocks and a head, whose blocks can be replaced one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from spaces.models.block import Block
from spaces.tasks import Batch


class BlockNetwork(nn.Module):
    """``classify(blocks(embed(batch)))``."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """The blocks, first block first."""

    @abstractmethod
    def embed(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The input of the first block ``(batch, n, width)``, and its padding mask ``(batch, n)`` or None."""

    @abstractmethod
    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Logits of the last hidden states."""

    def forward(self, batch: Batch) -> Tensor:
        """``(batch, n, classes)`` where the task has an output per token, else ``(batch, classes)``."""
        x, padding = self.embed(batch)
        for block in self.blocks:
            x = block(x, padding)
        return self.classify(x, padding)

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor | None]:
        """The outputs of all blocks, ``(batch, n, width)`` each, and the padding mask."""
        x, padding = self.embed(batch)
        states = []
        for block in self.blocks:
            x = block(x, padding)
            states.append(x)
        return states, padding
