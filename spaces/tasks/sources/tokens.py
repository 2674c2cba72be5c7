"""Texts as token ids: bytes, characters, words or subwords, learned from the texts of the training split."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from spaces.batch import Batch
from spaces.dimensions import check_whole
from spaces.tasks.sources.learned_tokens import (
    BYTES,
    LEARNED,
    frequent_tokens,
    learn,
    read_tokenizer,
    unknown_id,
)
from spaces.tasks.sources.lossless import bytes_of_tokens, check_lossless

Ids = np.ndarray[Any, Any]  # of one text, int32
DEFAULT_VOCABULARY = 8192
MAX_VOCABULARY = 1 << 20  # a larger one would make the embedding too large
# Attributes of a task that depend on its tokens.
DERIVED = {"spec", "ids", "encoder", "generated_tokens", "_bytes_of", "_loaded", "_variants"}


class Encoder(Protocol):
    """Maps texts to ids."""

    vocabulary: int  # ids are 0..vocabulary-1
    kept_ids: tuple[int, ...] | None  # of the ids of a tokenizer file, where only some are kept: those of 0, 1, ...

    @property
    def state(self) -> str:
        """Equal for encoders that encode alike."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, at least one."""

    def truncate(self, ids: Ids, length: int) -> Ids:
        """At most ``length`` of the ids of a text."""


class TokenizedTask(Protocol):
    """A task whose inputs are token ids of texts."""

    tokens: TokenSettings
    length: int


T = TypeVar("T", bound=TokenizedTask)


@dataclass(frozen=True)
class TokenSettings:
    """What the tokens of a text are.

    Args:
        tokens: ``bytes``, ``characters``, ``words``, ``bpe``, ``wordpiece``, ``unigram``, ``subwords``, which is the
            one of the last two that suits the script, ``byte_bpe``, or a file ``tokenizer.json`` of the library
            ``tokenizers``.
        vocabulary: number of tokens that are learned at most; null: ``DEFAULT_VOCABULARY``. Of ``byte_bpe`` 256 are
            bytes. Of a file: share of its tokens that is kept, see :func:`frequent_tokens`; null: all. Bytes have none.
        lowercase: whether texts are converted to lower case before tokens are learned; null: true. In lower case fewer
            words are rare; case may tell classes apart, such as the sources of texts. Bytes, ``byte_bpe``, which keeps
            texts as they are, and files have none.
        special_tokens: of a file: whether a text has the special tokens that the file adds, such as ``[CLS]`` and
            ``[SEP]``, which trained checkpoints need.

    Raises:
        ValueError: a setting is unknown or will not be used.
    """

    tokens: str = "bytes"
    vocabulary: float | None = None
    lowercase: bool | None = None
    special_tokens: bool = False

    def __post_init__(self) -> None:
        if self.tokens not in ("bytes", *LEARNED) and not str(self.tokens).endswith(".json"):
            known = ", ".join(("bytes", *LEARNED))
            raise ValueError(f"tokens={self.tokens!r}: it must be {known} or a file that ends in .json")
        if not (self.lowercase is None or isinstance(self.lowercase, bool)):
            raise ValueError(f"lowercase={self.lowercase!r}: it must be true or false")
        if not isinstance(self.special_tokens, bool):
            raise ValueError(f"special_tokens={self.special_tokens!r}: it must be true or false")
        if self.special_tokens and self.tokens in ("bytes", *LEARNED):
            raise ValueError(f"special_tokens=true: tokens={self.tokens} has none; name a tokenizer.json that has")
        given = {"vocabulary": None if self.of_file else self.vocabulary, "lowercase": self.lowercase}
        for name, value in given.items():
            if value is not None and self.tokens not in LEARNED:
                raise ValueError(f"{name}={value}: with tokens={self.tokens} nothing is learned; write null")
        if self.tokens == "byte_bpe" and self.lowercase:
            raise ValueError("lowercase=true: with tokens=byte_bpe texts are kept as they are; write null")
        if self.vocabulary is None:
            return
        if not self.of_file:
            check_whole(BYTES if self.tokens == "byte_bpe" else 2, MAX_VOCABULARY, vocabulary=self.vocabulary)
        elif isinstance(self.vocabulary, bool) or not 0 < self.vocabulary <= 1:
            accepted = "with tokens from a file it must be a share of them, above 0 and at most 1; or null"
            raise ValueError(f"vocabulary={self.vocabulary!r}: {accepted}")

    @property
    def of_file(self) -> bool:
        """Whether the tokens are those of a tokenizer file."""
        return self.tokens not in ("bytes", *LEARNED)

    @property
    def unit(self) -> str:
        """What the sequence length counts."""
        return self.tokens if self.tokens in ("bytes", "characters", "words") else "tokens"

    def varied(
        self,
        tokens: str | None,
        vocabulary: float | None = None,
        lowercase: bool | None = None,
        special_tokens: bool | None = None,
    ) -> TokenSettings:
        """A copy with the settings that are not None; given tokens, the others are not taken over."""
        given = {"vocabulary": vocabulary, "lowercase": lowercase, "special_tokens": special_tokens}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changes) if tokens is None else TokenSettings(tokens, **changes)

    def encoder(self, texts: Iterable[str]) -> Encoder:
        """The encoder, learned from ``texts``, those of the training split.

        Raises:
            ValueError: the tokenizer file cannot be read.
        """
        if self.tokens == "bytes":
            return ByteEncoder()
        if self.tokens in LEARNED:
            vocabulary = int(self.vocabulary or DEFAULT_VOCABULARY)
            return LibraryEncoder(learn(self.tokens, vocabulary, texts, lowercase=self.lowercase is not False))
        whole = LibraryEncoder(read_tokenizer(self.tokens), special_tokens=self.special_tokens)
        return whole if self.vocabulary in (None, 1) else whole.trimmed(self.vocabulary or 1, list(texts))


def with_tokens(task: T, tokens: TokenSettings, length: int | None) -> T:
    """A copy of a task with other tokens and, unless None, another ``length``, without the attributes ``DERIVED``.

    Raises:
        ValueError: ``length`` is invalid.
    """
    varied = copy.copy(task)
    varied.__dict__ = {name: value for name, value in vars(task).items() if name not in DERIVED}
    varied.tokens = tokens
    if length is not None:
        check_whole(1, length=length)
        varied.length = length
    return varied


class ByteEncoder:
    """UTF-8 bytes."""

    vocabulary = 256
    kept_ids: tuple[int, ...] | None = None
    state = "bytes"

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See :meth:`Encoder.encode`."""
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]

    def truncate(self, ids: Ids, length: int) -> Ids:
        """The first ``length``."""
        return ids[:length]


class LibraryEncoder:
    """A tokenizer of the library ``tokenizers``.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        special_tokens: whether a text has the special tokens that the tokenizer adds.
        kept_ids: the ids that are kept, ascending, with that of the unknown token, which stands for the others; None:
            all. They are renumbered from 0.
    """

    def __init__(self, tokenizer: Any, *, special_tokens: bool = False, kept_ids: Sequence[int] | None = None) -> None:
        self._tokenizer, self._special_tokens = tokenizer, special_tokens
        self.vocabulary: int = max(tokenizer.get_vocab().values()) + 1
        self.kept_ids = None if kept_ids is None else tuple(kept_ids)
        if self.kept_ids is not None:
            new = {old: number for number, old in enumerate(self.kept_ids)}
            self.unknown_id = new[unknown_id(tokenizer)]
            self._new_ids = np.full(self.vocabulary, self.unknown_id, np.int32)
            self._new_ids[list(new)] = list(new.values())
            self.vocabulary = len(new)
        with_them, without = (len(tokenizer.encode("a", add_special_tokens=add)) for add in (True, False))
        # Trained checkpoints expect the last one, such as [SEP], at the end of a truncated text as well.
        self._ends_special = special_tokens and with_them > without

    @property
    def bytes_per_token(self) -> Ids:
        """The number of bytes of each token of a tokenizer that :meth:`check_lossless` accepts, ``(vocabulary,)``."""
        return np.array(bytes_of_tokens(self._tokenizer, self.vocabulary), np.int32)

    def check_lossless(self) -> None:
        """Raise ``ValueError`` unless the tokens of a text spell its bytes."""
        check_lossless(self._tokenizer)

    @property
    def file(self) -> str:
        """The content of the tokenizer's file."""
        return str(self._tokenizer.to_str())

    @property
    def state(self) -> str:
        """See :class:`Encoder`."""
        kept = "" if self.kept_ids is None else f" with the ids {self.kept_ids}"
        return f"{self.file}{' with special tokens' if self._special_tokens else ''}{kept}"

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See :meth:`Encoder.encode`."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=self._special_tokens)
        ids = [np.array(each.ids or [0], np.int32) for each in found]
        return ids if self.kept_ids is None else [self._new_ids[each] for each in ids]

    def trimmed(self, share: float, texts: Sequence[str]) -> LibraryEncoder:
        """The encoder with a share of the tokens, chosen by :func:`frequent_tokens`.

        Raises:
            ValueError: the tokenizer has no unknown token.
        """
        kept = frequent_tokens(self._tokenizer, self.encode(texts), max(1, round(share * self.vocabulary)))
        return LibraryEncoder(self._tokenizer, special_tokens=self._special_tokens, kept_ids=kept)

    def truncate(self, ids: Ids, length: int) -> Ids:
        """The first ``length``, or the first ``length - 1`` and the special token at the end."""
        if len(ids) <= length or not self._ends_special:
            return ids[:length]
        return np.concatenate([ids[: length - 1], ids[-1:]])


def pad_ids(texts: Sequence[Ids], length: int, labels: Tensor) -> Batch:
    """Ids ``(texts, length)`` with a padding mask, if there is padding, and labels as they are."""
    inputs = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, ids in zip(inputs, texts, strict=True):
        row[: len(ids)] = torch.from_numpy(ids)
    padding = torch.arange(length) >= torch.tensor([len(ids) for ids in texts])[:, None]
    return Batch(inputs, padding if padding.any() else None, labels)
