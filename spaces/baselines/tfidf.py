"""TF-IDF of token n-grams and logistic regression: the usual baseline of text classification.

Joachims, "Text Categorization with Support Vector Machines", 1998, for linear models on TF-IDF vectors; n-grams are
hashed (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009), as their number is not bounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaces.baselines import MAX_ROWS, Baseline, training_rows
from spaces.tasks import Batch, Task

CHARACTER_VOCABULARY = 512  # ids of a smaller vocabulary are characters or bytes, of a larger one words or pieces
CHARACTER_NGRAM, WORD_NGRAM = 5, 2  # the longest n-gram
HASH_BITS = 20
MAX_COLUMNS = 100_000  # n-grams kept, those in most training examples
MIN_EXAMPLES = 2  # that contain an n-gram
MAX_COUNTS = 100_000_000  # n-grams of all training examples times classes: about ten seconds
INVERSE_REGULARIZATION = 10.0
MULTIPLIER, MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)  # odd


class TfidfLogisticRegression(Baseline):
    """One class per sequence of ids."""

    name = "TF-IDF + logistic regression"

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression

        vocabulary, self.classes = task.spec.vocabulary, task.spec.classes
        assert vocabulary is not None
        self.longest = CHARACTER_NGRAM if vocabulary <= CHARACTER_VOCABULARY else WORD_NGRAM
        examples = task.data("train")
        lengths = examples.lengths
        tokens = examples.size * task.spec.length if lengths is None else int(lengths.sum())
        counts_per_row = tokens * self.longest * self.classes / examples.size
        rows = training_rows(task, min(MAX_ROWS, max(1, int(MAX_COUNTS / counts_per_row))))
        counts = hashed_ngrams(rows, self.longest)
        frequencies = np.bincount(counts.indices, minlength=counts.shape[1])
        order = np.argsort(-frequencies, kind="stable")[:MAX_COLUMNS]
        kept = np.sort(order[frequencies[order] >= min(MIN_EXAMPLES, rows.size)])
        self.column_of = np.full(counts.shape[1], -1, np.int32)
        self.column_of[kept] = np.arange(len(kept))
        self.tfidf = TfidfTransformer(sublinear_tf=True)
        vectors = self.tfidf.fit_transform(counts[:, kept])
        self.model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=100)
        self.model.fit(vectors, rows.labels.numpy())

    def forward(self, batch: Batch) -> Tensor:
        """See :meth:`Baseline.forward`."""
        vectors = self.tfidf.transform(hashed_ngrams(batch, self.longest, self.column_of))
        logits = torch.full((len(batch.inputs), self.classes), -np.inf)
        logits[:, self.model.classes_] = torch.from_numpy(self.model.predict_log_proba(vectors)).float()
        return logits


def hashed_ngrams(batch: Batch, longest: int, column_of: Any = None) -> Any:
    """Counts of the n-grams of 1 to ``longest`` ids, a sparse matrix ``(batch, columns)``.

    Args:
        batch: its ids, without those of padding, are counted.
        longest: ids of the longest n-gram.
        column_of: the column of each of ``2 ** HASH_BITS`` hashes, -1 for n-grams to leave out; None: the hash.
    """
    from scipy import sparse

    ids = batch.inputs.numpy().astype(np.uint64)
    present = np.ones(ids.shape, dtype=bool) if batch.padding is None else ~batch.padding.numpy()
    rows, columns, hashes = list[Any](), list[Any](), np.zeros_like(ids)
    for n in range(min(longest, ids.shape[1])):
        hashes = hashes[:, : ids.shape[1] - n] * MULTIPLIER + ids[:, n:] + np.uint64(1)
        row, column = np.nonzero(present[:, n:])
        mixed = hashes[row, column]
        mixed = (mixed ^ (mixed >> np.uint64(32))) * MIXER
        rows.append(row.astype(np.int32))
        columns.append((mixed >> np.uint64(64 - HASH_BITS)).astype(np.int32))
    row, column = np.concatenate(rows), np.concatenate(columns)
    width = 1 << HASH_BITS
    if column_of is not None:
        column = column_of[column]
        row, column, width = row[column >= 0], column[column >= 0], int(column_of.max()) + 1
    return sparse.coo_matrix((np.ones(len(row), np.float32), (row, column)), (len(ids), width)).tocsr()
