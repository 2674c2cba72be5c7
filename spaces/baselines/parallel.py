"""Translation by lookup: the source itself, or the target of the most similar source of the training split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spaces.baselines import Baseline, training_rows
from spaces.baselines.tfidf import hashed_ngrams
from spaces.tasks import EOS, IGNORE_INDEX, Batch, Task

LONGEST = 2  # n-gram of the comparison


class _Lookup(Baseline):
    """Baselines that write an answer at once and have no logits."""

    def forward(self, batch: Batch) -> Tensor:
        """Refused: such a baseline generates."""
        raise NotImplementedError("this baseline has no logits; see generate")


class CopiedSource(_Lookup):
    """The source as its own translation.

    Args:
        as_target: maps source ids ``(batch, length)`` and their padding to target ids, filled up with ``EOS``.
    """

    name = "copied source"

    def __init__(self, as_target: Callable[[Batch], Tensor]) -> None:
        super().__init__()
        self.as_target = as_target

    def fit(self, task: Task) -> None:
        """Nothing is learned."""

    def generate(self, batch: Batch, max_new_tokens: int, *, ignore_eos: bool = False) -> Tensor:
        """Target ids ``(batch, n)``, filled up with ``EOS``."""
        return self.as_target(batch)


class NearestPair(_Lookup):
    """The target of the training pair whose source is the most similar: the cosine of TF-IDF vectors of n-grams."""

    name = "nearest training pair"

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        from sklearn.feature_extraction.text import TfidfTransformer

        examples = training_rows(task)
        self.tfidf = TfidfTransformer(sublinear_tf=True)
        self.sources = self.tfidf.fit_transform(hashed_ngrams(examples, LONGEST)).T.tocsr()
        self.targets = examples.labels.masked_fill(examples.labels == IGNORE_INDEX, EOS)

    def generate(self, batch: Batch, max_new_tokens: int, *, ignore_eos: bool = False) -> Tensor:
        """See :meth:`CopiedSource.generate`."""
        vectors = self.tfidf.transform(hashed_ngrams(batch, LONGEST))
        cosines = (vectors @ self.sources).toarray()
        return self.targets[torch.from_numpy(cosines.argmax(1))]
