"""Tokens of parallel text: one vocabulary for both languages, from whose ids the text can be restored.

Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016, section 3.2, for a joint
byte-pair encoding of both languages; that its symbols are bytes: Radford et al., "Language Models are Unsupervised
Multitask Learners", 2019, section 2.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from spaces.dimensions import check_whole
from spaces.tasks.sources.learned_tokens import read_tokenizer
from spaces.tasks.sources.tokens import DEFAULT_VOCABULARY, MAX_VOCABULARY

BYTES = 256
LEARNED = ("words", "bpe")


class PairTokens(Protocol):
    """Maps texts to ids and back."""

    vocabulary: int  # ids are 0..vocabulary-1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""


def check_tokens(tokens: str, vocabulary: int | None) -> None:
    """Raise ``ValueError`` if :func:`pair_tokens` does not accept the settings."""
    if tokens not in ("bytes", *LEARNED) and not tokens.endswith(".json"):
        raise ValueError(f"tokens={tokens!r}: it must be words, bytes, bpe or a file that ends in .json")
    if vocabulary is not None:
        if tokens not in LEARNED:
            raise ValueError(f"vocabulary={vocabulary}: with tokens={tokens} nothing is learned; write null")
        check_whole(BYTES if tokens == "bpe" else 1, MAX_VOCABULARY, vocabulary=vocabulary)


def pair_tokens(tokens: str, vocabulary: int | None, texts: Iterable[str]) -> PairTokens:
    """The tokens that the settings name.

    Args:
        tokens: ``words``, separated by spaces; ``bytes``; ``bpe``, a byte-pair encoding of bytes; or a file
            ``tokenizer.json`` of the library ``tokenizers``.
        vocabulary: how many words or pairs of ``texts`` are learned at most, the most frequent ones; None:
            ``DEFAULT_VOCABULARY``.
        texts: of both languages.

    Raises:
        ValueError: the file cannot be read, or does not restore the texts.
    """
    if tokens == "words":
        return Words(texts, vocabulary or DEFAULT_VOCABULARY)
    if tokens == "bytes":
        return Bytes()
    if tokens == "bpe":
        return Subwords(learn_bpe(texts, vocabulary or DEFAULT_VOCABULARY))
    subwords, texts = Subwords(read_tokenizer(tokens)), list(texts)
    restored = map(subwords.decode, subwords.encode(texts))
    if changed := [text for text, same in zip(texts, restored, strict=True) if text != same]:
        share = f"{len(changed)} of {len(texts)} sentences, such as {changed[0]!r}"
        raise ValueError(f"tokens={tokens!r}: this tokenizer does not restore {share}; translations need one that does")
    return subwords


class Words:
    """Words that are separated by spaces; id 0 is that of others, which are restored as ``?``."""

    def __init__(self, texts: Iterable[str], vocabulary: int) -> None:
        counts = Counter(word for text in texts for word in text.split())
        self.words = ["?", *(word for word, _ in counts.most_common(vocabulary) if word != "?")]
        self.vocabulary = len(self.words)
        self._ids = {word: number for number, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See :meth:`PairTokens.encode`."""
        return [[self._ids.get(word, 0) for word in text.split()] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`PairTokens.decode`."""
        return " ".join(self.words[number] for number in ids)


class Bytes:
    """UTF-8 bytes; those that are not UTF-8 are restored as replacement characters."""

    vocabulary = BYTES

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See :meth:`PairTokens.encode`."""
        return [list(text.encode()) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`PairTokens.decode`."""
        return bytes(ids).decode(errors="replace")


class Subwords:
    """A ``tokenizers.Tokenizer``."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.vocabulary: int = max(tokenizer.get_vocab().values()) + 1

    @property
    def file(self) -> str:
        """The content of ``tokenizer.json``."""
        content: str = self._tokenizer.to_str()
        return content

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See :meth:`PairTokens.encode`."""
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`PairTokens.decode`; without the space before the first word."""
        text: str = self._tokenizer.decode(list(ids))
        return text.removeprefix(" ")


def learn_bpe(texts: Iterable[str], vocabulary: int) -> Any:
    """A ``tokenizers.Tokenizer``: a byte-pair encoding of bytes within words, each with the space before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
