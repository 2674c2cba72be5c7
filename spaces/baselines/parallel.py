"""Translation by lookup: the source itself, or the target of the most similar source of the training split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.baselines import Baseline, training_rows
from spaces.baselines.nearest import NearestSequences, Rows
from spaces.tasks import EOS, IGNORE_INDEX, Batch, Task


class _Lookup(Baseline):
    """Baselines that write an answer at once and have no logits."""

    def forward(self, batch: Batch) -> Tensor:
        """Refused: such a baseline generates."""
        raise NotImplementedError("this baseline has no logits; see generate")


class CopiedSource(_Lookup):
    """The source as its own translation; source and target share their ids."""

    name = "copied source"

    def fit(self, task: Task) -> None:
        """Nothing is learned."""

    def generate(self, batch: Batch, max_new_tokens: int, *, ignore_eos: bool = False) -> Tensor:
        """Target ids ``(batch, n)``, filled up with ``EOS``."""
        ids = batch.inputs if batch.padding is None else batch.inputs.masked_fill(batch.padding, EOS)
        return F.pad(ids, (0, 1), value=EOS)


class NearestPair(_Lookup):
    """The target of the training pair whose source is the most similar; see :class:`NearestSequences`."""

    name = "nearest training pair"

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        examples = training_rows(task)
        self.sources = NearestSequences(_rows(examples))
        self.targets = examples.labels.masked_fill(examples.labels == IGNORE_INDEX, EOS)

    def generate(self, batch: Batch, max_new_tokens: int, *, ignore_eos: bool = False) -> Tensor:
        """See :meth:`CopiedSource.generate`."""
        return self.targets[torch.from_numpy(self.sources.find(_rows(batch))[:, 0])]


def _rows(batch: Batch) -> Rows:
    """The ids of each sequence, without those of padding."""
    if batch.padding is None:
        return batch.inputs.tolist()
    return [ids[~padding].tolist() for ids, padding in zip(batch.inputs, batch.padding, strict=True)]
