"""Tokenizers of the library ``tokenizers``, learned from texts or read from a file.

Subwords are those of byte-pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword
Units", 2016), also over bytes (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), of
WordPiece (Schuster and Nakajima, "Japanese and Korean Voice Search", 2012) or of a unigram language model (Kudo,
"Subword Regularization", 2018), all by the library ``tokenizers``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from spaces.models.checkpoint import checkpoint_folder

LEARNED = ("characters", "words", "bpe", "wordpiece", "unigram", "subwords", "byte_bpe")
BYTES = 256  # tokens of byte_bpe before any are joined
UNKNOWN = "[UNK]"  # the token, of id 0, of what is not in the vocabulary
# Scripts that write no spaces between words: in words each of their characters is one, subwords may join them.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPACED = rf"[\p{{L}}\p{{M}}\p{{N}}_&&[^{UNSPACED}]]+"
MARK = r"[^\s\p{L}\p{M}\p{N}_]"
MOST_COUNTED = 1000  # texts from which it is told whether they are written without spaces


def learn(kind: str, vocabulary: int, texts: Iterable[str], *, lowercase: bool = True) -> Any:
    """A ``tokenizers.Tokenizer`` of one of the kinds ``LEARNED``, with at most ``vocabulary`` tokens.

    It is the same in every process, as a trial may be resumed by another one. ``subwords`` are ``unigram`` in texts
    that are written without spaces, otherwise ``wordpiece``: without spaces a whole sentence is one word, and WordPiece
    would tell the pieces at its beginning from equal ones within it.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    texts = list(texts)
    if kind == "subwords":
        kind = "unigram" if _have_no_spaces(texts[:MOST_COUNTED]) else "wordpiece"
    if kind == "byte_bpe":
        return _learn_byte_pairs(vocabulary, texts)
    model: Any
    trainer: Any
    options: dict[str, Any] = {"vocab_size": vocabulary, "special_tokens": [UNKNOWN], "show_progress": False}
    if kind in ("bpe", "wordpiece"):
        model, trainer = models.BPE(unk_token=UNKNOWN), trainers.BpeTrainer(**options)
    elif kind == "unigram":
        model, trainer = models.Unigram(), trainers.UnigramTrainer(unk_token=UNKNOWN, **options)
    else:
        model, trainer = models.WordLevel(unk_token=UNKNOWN), trainers.WordLevelTrainer(**options)
    unspaced = f"[{UNSPACED}]" if kind == "words" else f"[{UNSPACED}]+"
    pieces = r"\S" if kind == "characters" else f"{unspaced}|{SPACED}|{MARK}"
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])])
    # What matches no piece, white space, is removed: inverted, the pieces are the delimiters that are kept.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="removed", invert=True)
    if kind in ("bpe", "wordpiece", "unigram"):
        normalized = [tokenizer.normalizer.normalize_str(text) for text in texts]
        texts = _without_rare_characters(normalized, limit=vocabulary // 2)
    tokenizer.train_from_iterator(texts, trainer)
    if kind == "wordpiece":
        # The library's own trainer for WordPiece, also by byte-pair encoding, breaks ties at random.
        pieces_of = _word_pieces(tokenizer, texts, vocabulary)
        tokenizer.model = models.WordPiece(pieces_of, unk_token=UNKNOWN)
    return _reestimated(tokenizer, texts) if kind == "unigram" else tokenizer


def _have_no_spaces(texts: Sequence[str]) -> bool:
    """Whether most characters of the texts are of scripts that write no spaces between words."""
    from tokenizers import Regex, normalizers

    text = "".join("".join(texts).split())
    return 2 * len(normalizers.Replace(Regex(f"[{UNSPACED}]"), "").normalize_str(text)) < len(text)


def _learn_byte_pairs(vocabulary: int, texts: Iterable[str]) -> Any:
    """A byte-pair encoding over bytes. It is lossless: any text is decoded as it was, white space included.

    In the vocabulary each byte is one character, so a token has as many bytes as its name has characters.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _without_rare_characters(texts: Sequence[str], limit: int) -> list[str]:
    """The texts with at most ``limit`` characters, the most frequent ones, and spaces in place of others.

    Of thousands of characters, as in Chinese, the rare ones leave room in the vocabulary for what is longer.
    """
    counts = Counter(character for text in texts for character in text if not character.isspace())
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    rare = dict.fromkeys(map(ord, ordered[limit:]), " ")
    return [text.translate(rare) for text in texts]


def _word_pieces(tokenizer: Any, texts: Sequence[str], vocabulary: int) -> dict[str, int]:
    """The most frequent tokens of a byte-pair encoding by id, with ``##`` where they continue a word."""
    counts: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        for before, word, token in zip([None, *encoding.word_ids], encoding.word_ids, encoding.tokens, strict=False):
            counts[f"##{token}" if word == before else token] += 1
    del counts[UNKNOWN]
    ordered = sorted(counts, key=lambda token: (-counts[token], token))
    return {token: number for number, token in enumerate([UNKNOWN, *ordered][:vocabulary])}


def _reestimated(tokenizer: Any, texts: Sequence[str]) -> Any:
    """A unigram model with the frequencies of its tokens in the texts, and ids in the order of the tokens.

    The order of the library's tokens, and the last digits of its scores, differ between two runs.
    """
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    counts = Counter(token for encoding in tokenizer.encode_batch(texts) for token in encoding.tokens)
    tokens = sorted({token for token, _ in state["model"]["vocab"]} - {UNKNOWN})
    # A token that occurs within others alone counts less than one that occurs once.
    scores = [math.log(max(counts[token], 0.5) / counts.total()) for token in (UNKNOWN, *tokens)]
    vocabulary = [list(each) for each in zip((UNKNOWN, *tokens), scores, strict=True)]
    state["model"] |= {"vocab": vocabulary, "unk_id": 0}
    return Tokenizer.from_str(json.dumps(state))


def read_tokenizer(name: str) -> Any:
    """The ``tokenizers.Tokenizer`` of a file, without its padding and truncation.

    Args:
        name: the file, or ``CHECKPOINT/tokenizer.json``, see :func:`~spaces.models.checkpoint.checkpoint_folder`.

    Raises:
        ValueError: there is none.
    """
    from tokenizers import Tokenizer

    path = Path(name).expanduser()
    if not path.is_file():
        with suppress(ValueError):
            path = checkpoint_folder(str(Path(name).parent)) / path.name
    if not path.is_file():
        raise ValueError(f"tokens={name!r}: no such file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise ValueError(f"tokens={name!r}: no tokenizer file: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def unknown_id(tokenizer: Any) -> int:
    """The id of the unknown token of a ``tokenizers.Tokenizer``.

    Raises:
        ValueError: it has none, as byte-level tokenizers do.
    """
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    found = [tokenizer.token_to_id(token) for token in (model.get("unk_token"), UNKNOWN, "<unk>") if token]
    known = next((number for number in found if number is not None), None)
    if known is None:
        raise ValueError("vocabulary: it must be null, as the tokenizer has no unknown token for what is left out")
    return int(known)


def frequent_tokens(tokenizer: Any, texts: Iterable[Any], count: int) -> list[int]:
    """The ids, ascending, of ``count`` tokens: the unknown and special ones, then the most frequent ones in texts.

    Among equally frequent tokens, such as those that no text has, those with lower ids come first: in most vocabularies
    they are the more frequent ones.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        texts: arrays of ids.
        count: of tokens; at least the unknown and special ones are kept.
    """
    counts: Counter[int] = Counter()
    for ids in texts:
        counts.update(ids.tolist())
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    special |= {unknown_id(tokenizer), *tokenizer.encode("").ids}  # such as [CLS] and [SEP]
    every = tokenizer.get_vocab().values()
    ordered = sorted(every, key=lambda number: (number not in special, -counts[number], number))
    return sorted(ordered[: max(count, len(special))])
