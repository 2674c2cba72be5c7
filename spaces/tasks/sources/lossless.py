"""Tokenizers whose tokens spell the bytes of a text, so that a language model can be scored in bits per byte.

Byte-level ones (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019) write each byte as a
character. SentencePiece (Kudo and Richardson, 2018) writes spaces as the character ``SPACE``, and with byte fallback
characters that are no tokens as tokens of bytes, ``<0x00>``.
"""

from __future__ import annotations

import json
import re
from typing import Any

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_SENTENCEPIECE = (  # normalizers that replace spaces, and put one before a text
    {"type": "Prepend", "prepend": SPACE},
    {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
)


def check_lossless(tokenizer: Any) -> None:
    """Raise ``ValueError`` unless the tokens of a ``tokenizers.Tokenizer`` spell the bytes of a text as it was.

    Those of SentencePiece begin a text with a space, which belongs to the first token, and do not tell ``SPACE`` from a
    space.
    """
    state = json.loads(tokenizer.to_str())
    splits = state["pre_tokenizer"] or {}
    splits = [each for each in splits.get("pretokenizers", [splits]) if each]
    normalizer = state["normalizer"] or {}
    normalizers = [each for each in normalizer.get("normalizers", [normalizer]) if each]
    if _has_byte_fallback(tokenizer):
        reasons = [
            (any(each["type"] != "Metaspace" or each["replacement"] != SPACE for each in splits), "it splits texts"),
            (any(each not in _SENTENCEPIECE for each in normalizers), "it normalizes texts"),
            (
                not {f"<0x{byte:02X}>" for byte in range(256)} <= tokenizer.get_vocab().keys(),
                "some bytes are no tokens",
            ),
        ]
    else:
        bytes_of = [each for each in splits if each["type"] == "ByteLevel"]
        reasons = [
            (not bytes_of, "its tokens are not of bytes"),
            (any(each["add_prefix_space"] for each in bytes_of), "it adds a space before the text"),
            (bool(normalizers), "it normalizes texts"),
            (not _byte_alphabet() <= tokenizer.get_vocab().keys(), "some bytes are no tokens"),
        ]
    if reason := next((reason for is_so, reason in reasons if is_so), None):
        accepted = "a byte-level one, as of GPT-2 and Llama 3, or one with byte fallback, as of Llama 2"
        raise ValueError(f"tokens: the tokenizer of a language model must be {accepted}; {reason}")


def _byte_alphabet() -> set[str]:
    from tokenizers import pre_tokenizers

    return set(pre_tokenizers.ByteLevel.alphabet())


def _has_byte_fallback(tokenizer: Any) -> bool:
    """Whether a ``tokenizers.Tokenizer`` writes characters that are no tokens as tokens of bytes, ``<0x00>``."""
    return bool(json.loads(tokenizer.to_str())["model"].get("byte_fallback"))


def bytes_of_tokens(tokenizer: Any, vocabulary: int) -> list[int]:
    """The number of bytes of each token of a ``tokenizers.Tokenizer`` that :func:`check_lossless` accepts, by id."""
    names = [tokenizer.id_to_token(number) or "" for number in range(vocabulary)]
    if not _has_byte_fallback(tokenizer):
        return list(map(len, names))  # each byte is written as a character
    return [1 if re.fullmatch(r"<0x[0-9A-F]{2}>", name) else len(name.replace(SPACE, " ").encode()) for name in names]
