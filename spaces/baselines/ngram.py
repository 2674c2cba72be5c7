"""An n-gram language model: the distribution of the next token after the last n - 1 tokens, by counting.

Interpolation by Witten and Bell, "The Zero-Frequency Problem", 1991, in the form of Chen and Goodman, "An Empirical
Study of Smoothing Techniques for Language Modeling", 1999, section 2.6: with ``c`` counts and ``d`` distinct next
tokens of a context, ``p(token | context) = (c(context, token) + d * p(token | shorter context)) / (c(context) + d)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spaces.baselines import Baseline, training_rows
from spaces.tasks import IGNORE_INDEX, Batch, Task


class Level(NamedTuple):
    """The counts after the known contexts of one length; those of context ``i`` are ``start[i]:start[i + 1]``."""

    keys: Any  # of the contexts, sorted: see :meth:`NGram._extend`
    start: Any
    tokens: Any
    counts: Any
    totals: Any  # of the counts after each context


class NGram(Baseline):
    """Next-token prediction where the label of a position is the token of the next one.

    Args:
        order: tokens of an n-gram, the predicted one included.
    """

    def __init__(self, order: int = 5) -> None:
        super().__init__()
        self.order, self.name = order, f"interpolated {order}-gram"

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        assert task.spec.vocabulary is not None
        self.vocabulary = task.spec.vocabulary
        examples = training_rows(task)
        inputs, labels = examples.inputs.numpy(), examples.labels.numpy()
        labelled = labels != IGNORE_INDEX
        if (inputs[:, 1:] != labels[:, :-1])[labelled[:, :-1]].any():
            raise ValueError("the labels are not the next tokens")
        self.levels: list[Level] = []
        contexts = inputs
        for length in range(self.order):
            keys = self._extend(contexts, inputs, length)
            known = labelled & (keys >= 0)
            there, numbers = np.unique(keys[known], return_inverse=True)
            pairs, counts = np.unique(numbers * self.vocabulary + labels[known], return_counts=True)
            start = np.searchsorted(pairs, np.arange(len(there) + 1) * self.vocabulary)
            totals = np.bincount(numbers, minlength=len(there))
            self.levels.append(Level(there, start, pairs % self.vocabulary, counts, totals))
            contexts = _find(keys, there)

    def forward(self, batch: Batch) -> Tensor:
        """Logarithms of probabilities ``(batch, length, vocabulary)``."""
        inputs = batch.inputs.numpy()
        probabilities = np.full((inputs.size, self.vocabulary), 1 / self.vocabulary, np.float32)
        contexts = inputs
        for length, level in enumerate(self.levels):
            contexts = _find(self._extend(contexts, inputs, length), level.keys)
            rows = np.flatnonzero(contexts >= 0)
            numbers = contexts.ravel()[rows]
            distinct = level.start[numbers + 1] - level.start[numbers]
            offsets = np.arange(distinct.sum()) - np.repeat(distinct.cumsum() - distinct, distinct)
            entries = np.repeat(level.start[numbers], distinct) + offsets
            totals = level.totals[numbers]
            probabilities[rows] *= (distinct / (totals + distinct))[:, None]
            shares = level.counts[entries] / np.repeat(totals + distinct, distinct)
            probabilities[np.repeat(rows, distinct), level.tokens[entries]] += shares
        return torch.from_numpy(probabilities).log().view(*inputs.shape, self.vocabulary)

    def generate(self, prompt: Tensor, max_new_tokens: int) -> Tensor:
        """Continue ``prompt`` ``(batch, n)`` by the most probable tokens, ``(batch, max_new_tokens)``."""
        ids = prompt
        for _ in range(max_new_tokens):
            seen = ids[:, max(0, ids.shape[1] - self.order + 1) :]
            ids = torch.cat([ids, self(Batch(seen, None, seen))[:, -1:].argmax(-1)], dim=1)
        return ids[:, prompt.shape[1] :]

    def _extend(self, shorter: Any, inputs: Any, length: int) -> Any:
        """The key of the context of ``length`` tokens that ends at each position, -1 if it is not known.

        A key is the number of the context without its last token, times the vocabulary, plus the last token.

        Args:
            shorter: the number of the context of ``length - 1`` tokens that ends at each position, -1 likewise.
            inputs: the token at each position.
            length: tokens of the context.
        """
        if length < 2:
            return inputs * length
        before = np.full_like(shorter, -1)
        before[:, 1:] = shorter[:, :-1]
        return np.where(before < 0, -1, before * self.vocabulary + inputs)


def _find(keys: Any, known: Any) -> Any:
    """The positions of ``keys`` in ``known``, which is sorted; -1 for others."""
    places = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[places] == keys, places, -1)
