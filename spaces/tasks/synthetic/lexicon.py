"""Random words for tasks that generate speech."""

from __future__ import annotations

import string

import torch

SHORTEST_WORD, LONGEST_WORD = 2, 5  # letters
SPACE = 0  # index in an alphabet


def alphabet_of(letters: int) -> str:
    """A space and the first ``letters`` letters.

    Raises:
        ValueError: the alphabet has no such number of letters.
    """
    if not (isinstance(letters, int) and 2 <= letters <= len(string.ascii_lowercase)):
        raise ValueError(f"letters={letters}: it must be a whole number from 2 to {len(string.ascii_lowercase)}")
    return " " + string.ascii_lowercase[:letters]


def lexicon_of(words: int, alphabet: str, *, seed: int) -> list[str]:
    """Random words of 2 to 5 letters, without double letters, which would sound like single ones."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(SHORTEST_WORD, LONGEST_WORD + 1, (words,), generator=generator).tolist()
    letters = len(alphabet) - 1
    steps = torch.randint(1, letters, (words, LONGEST_WORD), generator=generator)
    written = (steps.cumsum(1) % letters + 1).tolist()
    return ["".join(alphabet[at] for at in word[:n]) for word, n in zip(written, lengths, strict=True)]
