"""Texts from logits: transcripts frame by frame, translations token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLANK = 0  # the class of the CTC blank; class 1 + k is the k-th character of the alphabet
BOS, EOS = 0, 1  # ids of a translation: beginning and end


def transcript(logits: Array, alphabet: str) -> str:
    """Greedy CTC decoding of ``(frames, classes)``: the most probable class of each frame, repetitions merged.

    Graves et al., "Connectionist Temporal Classification", 2006, section 3.2.
    """
    classes = logits.argmax(-1)
    kept = classes[(classes != BLANK) & (np.diff(classes, prepend=-1) != 0)]
    return "".join(alphabet[at - 1] for at in kept)


def greedy(decode: Callable[[Array], Array], count: int, most: int, length: int, *, ignore_eos: bool = False) -> Array:
    """The most probable token after all before it, again and again: ids ``(count, n)``, ``n <= most``.

    It stops when every sequence has reached ``EOS``, unless ``ignore_eos``; after its ``EOS`` a sequence has ``EOS``.

    Args:
        decode: maps ids ``(count, length)``, of which those after a token do not count, to logits of the next tokens.
        count: sequences.
        most: tokens, at most ``length``.
        length: that ``decode`` takes.
    """
    ids = np.full((count, length + 1), EOS, dtype=np.int64)
    ids[:, 0], at = BOS, 0
    ended = np.zeros(count, dtype=bool)
    while at < most and (ignore_eos or not ended.all()):
        ids[:, at + 1] = np.where(ended, EOS, decode(ids[:, :length])[:, at].argmax(-1))
        at += 1
        ended |= ids[:, at] == EOS
    return ids[:, 1 : at + 1]


def text_decoder(settings: dict[str, Any], folder: Path) -> Callable[[Sequence[int]], str]:
    """The function from the ids of a translation, up to its ``EOS``, to its text."""
    first = settings["first_id"]
    if settings["tokens"] == "words":
        words = settings["words"].split("\n")
        return lambda ids: " ".join(words[at - first] for at in _tokens(ids, first))
    if settings["tokens"] == "bytes":
        return lambda ids: bytes(at - first for at in _tokens(ids, first)).decode(errors="replace")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda ids: tokenizer.decode([at - first for at in _tokens(ids, first)]).removeprefix(" ")


def _tokens(ids: Sequence[int], first: int) -> list[int]:
    """The ids before the first ``EOS``, without those that are none of the tokenizer's."""
    found = [int(at) for at in ids]
    found = found[: found.index(EOS)] if EOS in found else found
    return [at for at in found if at >= first]
