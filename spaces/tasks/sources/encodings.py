"""The token ids of texts, encoded once per tokenizer for the largest length asked for, and cut to smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spaces.tasks import MAX_VARIANTS, Split
from spaces.tasks.sources.stored import CHUNK, LARGE, Chunk, StoredExamples, stored_examples
from spaces.tasks.sources.tokens import Encoder, Ids, TokenSettings

ID_BYTES = 8  # of an id in a batch
T = TypeVar("T")


@dataclass(frozen=True)
class Encoding:
    """The ids of the texts of a split, each truncated to ``length``.

    Args:
        found: of a large split in files.
        length: tokens of a text at most.
        lengths: tokens of each whole text; those of the truncated ones where the ids were in the cache.
        encoder: truncates ids.
    """

    found: list[Ids] | StoredExamples
    length: int
    lengths: NDArray[Any]
    encoder: Encoder

    def cut(self, length: int) -> list[Ids] | StoredExamples:
        """The ids truncated to ``length``, at most :attr:`length`; only those of a large split are left in files."""
        if isinstance(self.found, list):
            return self.found if length == self.length else [self.encoder.truncate(ids, length) for ids in self.found]
        view = self.found.truncated(length, lambda ids: self.encoder.truncate(ids, length))
        return [ids.astype(np.int32) for ids in view] if is_small(view.size, view.length) else view

    def longer(self, length: int) -> int:
        """The number of texts of more tokens than ``length``, as far as known."""
        return int((self.lengths > length).sum())


class PerTokens(Generic[T]):
    """What a task and its variants have for each split, of the ``MAX_VARIANTS`` tokenizers used last."""

    def __init__(self) -> None:
        self._of_tokens: dict[TokenSettings, dict[Split, T]] = {}

    def of(self, tokens: TokenSettings) -> dict[Split, T]:
        """That of a tokenizer, to be filled."""
        found = self._of_tokens.pop(tokens, {})
        self._of_tokens[tokens] = found
        if len(self._of_tokens) > MAX_VARIANTS:
            del self._of_tokens[next(iter(self._of_tokens))]
        return found


def is_small(texts: int, length: int) -> bool:
    """Whether a batch of so many texts of a length is kept in memory."""
    return ID_BYTES * texts * length < LARGE


def encode_texts(
    texts: Sequence[str], encoder: Encoder, length: int, *, name: Callable[[], str], labels: Callable[[], Tensor]
) -> Encoding:
    """Encode the texts of a split.

    Args:
        texts: all of them.
        encoder: of texts.
        length: to which ids are truncated.
        name: returns that of the files, as of :func:`~spaces.tasks.sources.stored.cache_name`; it depends on the texts,
            their labels, the encoder and the length.
        labels: returns the class of each text.
    """
    lengths = list[int]()

    def parts() -> Iterator[list[Ids]]:
        for at in range(0, len(texts), CHUNK):
            found = encoder.encode(texts[at : at + CHUNK])
            lengths.extend(map(len, found))
            yield [encoder.truncate(ids, length) for ids in found]

    def chunks() -> Iterator[Chunk]:
        numbers, at = labels(), 0
        ids_type = np.min_scalar_type(encoder.vocabulary - 1)
        for part in parts():
            sizes = np.array([len(ids) for ids in part])
            yield Chunk(np.concatenate(part).astype(ids_type), sizes, numbers[at : at + len(part)].numpy())
            at += len(part)

    if is_small(len(texts), min(length, max(map(len, texts), default=0))):
        ids = [ids for part in parts() for ids in part]
        return Encoding(ids, length, np.array(lengths), encoder)
    stored = stored_examples(name(), chunks)
    return Encoding(stored, length, np.array(lengths) if lengths else stored.token_counts, encoder)
