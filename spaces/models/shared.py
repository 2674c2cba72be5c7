"""One encoder for several tasks, of one modality or of several."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.models.embedding import Embedding
from spaces.models.encoder import pooled
from spaces.models.trunk import Trunk
from spaces.tasks import Batch, TaskSpec


class SharedEncoder(nn.Module):
    """An embedding and a head a task around one trunk.

    Args:
        mechanisms: one a block, first block first.
        spec: those of a task that is several.
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
        super().__init__()
        if not spec.subtasks:
            raise ValueError("this task is a single one: it needs spaces.models.encoder.Encoder")
        self.spec = spec
        self.embeddings = nn.ModuleDict({name: Embedding(part, width=width) for name, part in spec.subtasks.items()})
        self.trunk = Trunk(
            mechanisms,
            width=width,
            length=spec.length,
            causal=False,
            feed_forward=feed_forward,
            dropout=dropout,
            activation=activation,
            positions=positions,
        )
        self.heads = nn.ModuleDict({name: nn.Linear(width, part.classes) for name, part in spec.subtasks.items()})

    def forward(self, batch: Batch) -> tuple[Tensor | None, ...]:
        """What :meth:`of` gives for each part of the batch; None where it has none."""
        parts = zip(self.spec.subtasks, batch.subtasks, strict=True)
        return tuple(None if part is None else self.of(name, part) for name, part in parts)

    def of(self, name: str, batch: Batch) -> Tensor:
        """Of one task: ``(batch, n, classes)`` where it has an answer a token, else ``(batch, classes)``."""
        x = self.trunk(self.embeddings[name](batch.inputs, batch.padding), batch.padding)
        if not self.spec.subtasks[name].per_token:
            x = pooled(x, batch.padding, "mean")
        answers: Tensor = self.heads[name](x)
        return answers
