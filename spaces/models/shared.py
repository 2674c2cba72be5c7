"""One encoder for several tasks, of one modality or of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from spaces.attention import Mechanism
from spaces.models.config import ModelConfig
from spaces.models.embedding import Embedding
from spaces.models.encoder import pool
from spaces.models.trunk import Trunk
from spaces.tasks import Batch, TaskSpec


class SharedEncoder(nn.Module):
    """A trunk shared by several tasks, with an embedding and a head per task.

    Args:
        mechanisms: one per block, first block first.
        config: the settings that all models share.
        spec: the specification of a multi-task task.
    """

    config_class: ClassVar = ModelConfig

    def __init__(self, mechanisms: Sequence[Mechanism], config: ModelConfig, *, spec: TaskSpec) -> None:
        super().__init__()
        if not spec.subtasks:
            raise ValueError("this task is a single one: it needs spaces.models.encoder.Encoder")
        self.spec = spec
        self.embeddings = nn.ModuleDict({name: Embedding(part, config) for name, part in spec.subtasks.items()})
        self.trunk = Trunk(mechanisms, config, length=-(-spec.length // config.stride), causal=False)
        heads = {name: nn.Linear(config.width, part.classes) for name, part in spec.subtasks.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, batch: Batch) -> tuple[Tensor | None, ...]:
        """:meth:`forward_task` for each part of the batch; None where the batch has none."""
        parts = zip(self.spec.subtasks, batch.subtasks, strict=True)
        return tuple(None if part is None else self.forward_task(name, part) for name, part in parts)

    def forward_task(self, name: str, batch: Batch) -> Tensor:
        """One task: ``(batch, n, classes)`` where it has an output per token, else ``(batch, classes)``."""
        x, padding = self.embeddings[name](batch.inputs, batch.padding)
        x = self.trunk(x, padding)
        if not self.spec.subtasks[name].per_token:
            x = pool(x, padding, "mean")
        logits: Tensor = self.heads[name](x)
        return logits
