"""Retrieval of similar token sequences: by the cosine of TF-IDF vectors of their 1- and 2-grams, in numpy.

Salton and Buckley, "Term-weighting approaches in automatic text retrieval", 1988: logarithmic term frequencies, inverse
document frequencies, and vectors of length 1. Folders of exported translators contain a copy of this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Ids = Sequence[int] | Array  # of a sequence
Rows = Sequence[Ids]
MAX_IDS = 1 << 31
TIE = 1e-9  # relative difference of cosines that may be due to rounding


class NearestSequences:
    """Finds the most similar of the sequences of ids that it was given.

    Args:
        sequences: among which it searches.
    """

    def __init__(self, sequences: Rows) -> None:
        found = [_counted_ngrams(each) for each in sequences]
        rows = np.repeat(np.arange(len(found)), [len(ngrams) for ngrams, _ in found])
        every, counts = (np.concatenate(parts) for parts in zip(*found, strict=True))
        self._size = len(found)
        self._ngrams, columns, frequencies = np.unique(every, return_inverse=True, return_counts=True)
        self._inverse_frequencies = 1 + np.log((1 + self._size) / (1 + frequencies))
        weights = (1 + np.log(counts)) * self._inverse_frequencies[columns]
        weights /= np.sqrt(np.bincount(rows, weights**2, self._size))[rows]
        order = np.argsort(columns, kind="stable")  # an inverted index: the sequences that contain each n-gram
        self._rows, self._weights = rows[order], weights[order]
        self._ends = np.cumsum(frequencies)

    def find(self, queries: Rows, count: int = 1, *, others: bool = False) -> Array:
        """Indices of the ``count`` most similar sequences, the most similar first, ``(queries, count)``.

        Of equally similar ones the first comes first.

        Args:
            queries: like the sequences.
            count: at most the number of sequences.
            others: the queries are the sequences themselves, each of which is to find others.
        """
        found = np.empty((len(queries), count), np.int64)
        for at, query in enumerate(queries):
            similarities = self._similarities(query)
            if others:
                similarities[at] = -1
            found[at] = list(_largest(similarities, count))
        return found

    def _similarities(self, query: Ids) -> Array:
        """The cosines to all sequences, times the length of the query's vector."""
        ngrams, counts = _counted_ngrams(query)
        columns = np.searchsorted(self._ngrams, ngrams)
        columns[columns == len(self._ngrams)] = 0
        known = self._ngrams[columns] == ngrams
        columns, counts = columns[known], counts[known]
        if not len(columns):
            return np.zeros(self._size)
        starts = np.where(columns > 0, self._ends[columns - 1], 0)
        spans = [slice(*span) for span in zip(starts.tolist(), self._ends[columns].tolist(), strict=True)]
        weights = ((1 + np.log(counts)) * self._inverse_frequencies[columns]).tolist()
        rows = np.concatenate([self._rows[span] for span in spans])
        products = np.concatenate([self._weights[span] * weight for span, weight in zip(spans, weights, strict=True)])
        return np.bincount(rows, products, self._size)


def _counted_ngrams(ids: Ids) -> tuple[Array, Array]:
    """The 1- and 2-grams of a sequence, each as a number, and how often each occurs."""
    one = np.asarray(ids, np.int64)
    return np.unique(np.concatenate([one, (one[:-1] + 1) * MAX_IDS + one[1:]]), return_counts=True)


def _largest(values: Array, count: int) -> Iterator[int]:
    """The indices of the largest values, which are changed."""
    for _ in range(count):
        highest = values.max()
        at = int(np.argmax(values >= highest - TIE * abs(highest)))
        values[at] = -2
        yield at


def with_targets(source: Ids, targets: Rows, separators: tuple[int, int]) -> list[int]:
    """``source``, followed by each target between the two ``separators``."""
    before, after = separators
    return [*source, *(token for target in targets for token in (before, *target, after))]
