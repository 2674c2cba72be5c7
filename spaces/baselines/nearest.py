"""Retrieval of similar token sequences: by the cosine of TF-IDF vectors of their n-grams."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spaces.baselines.tfidf import hashed_ngrams
from spaces.batch import Batch

LONGEST = 2  # n-gram of the comparison
CHUNK = 1000  # sequences that are compared at once


class NearestSequences:
    """Finds the most similar of the sequences of ids that it was given.

    Args:
        sequences: among which it searches; only ``inputs`` and ``padding`` are used.
    """

    def __init__(self, sequences: Batch) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer

        self._tfidf = TfidfTransformer(sublinear_tf=True)
        self._vectors = self._tfidf.fit_transform(hashed_ngrams(sequences, LONGEST)).T.tocsr()

    def find(self, queries: Batch, count: int = 1, *, others: bool = False) -> Tensor:
        """Indices of the ``count`` most similar sequences, the most similar first, ``(queries, count)``.

        Args:
            queries: like the sequences.
            count: at most the number of sequences.
            others: the queries are the sequences themselves, each of which is to find others.
        """
        found = []
        for rows in torch.arange(queries.size).split(CHUNK):
            vectors = self._tfidf.transform(hashed_ngrams(queries.select(rows), LONGEST))
            cosines = (vectors @ self._vectors).toarray()
            if others:
                cosines[np.arange(len(rows)), rows.numpy()] = -1.0
            found.append(torch.from_numpy(cosines).topk(count).indices)
        return torch.cat(found)
