"""What all tasks share that ask for the text of what is heard: characters from frames, and how wrong they are.

A model gives each frame a character or a blank. A transcript's probability is the sum over all ways to spread it over
the frames, in which characters may be repeated and blanks stand between (Graves et al., "Connectionist Temporal
Classification", 2006), so nobody has to say when each character is heard. Decoding is greedy: each frame's likeliest,
repetitions once, blanks dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.tasks import IGNORE_INDEX, Batch, Task

BLANK = 0  # the class of a frame that adds no character; the alphabet's follow


class Errors(NamedTuple):
    """Insertions, deletions and replacements that make transcripts right, and how much there is to get right."""

    words: int
    of_words: int
    characters: int
    of_characters: int


class Transcription(Task):
    """Edits to words for each word of the transcripts, ``word_error_rate``; and likewise ``character_error_rate``.

    ``labels`` ``(batch, length)`` hold a transcript's characters at the first positions and ``IGNORE_INDEX`` after
    them, wherever in the frames they are heard.
    """

    metric = "word_error_rate"
    direction: Literal["maximize", "minimize"] = "minimize"
    best = 0.0
    chance = 1.0  # of an empty transcript
    alphabet: str  # a space parts words

    def encode(self, transcripts: Sequence[str], length: int) -> Tensor:
        """Labels ``(transcripts, length)``."""
        labels = torch.full((len(transcripts), length), IGNORE_INDEX)
        for row, transcript in zip(labels, transcripts, strict=True):
            row[: len(transcript)] = torch.tensor([1 + self.alphabet.index(letter) for letter in transcript])
        return labels

    def decode(self, logits: Tensor, padding: Tensor | None) -> list[str]:
        """The transcripts that ``logits`` ``(batch, length, classes)`` stand for."""
        heard = logits.argmax(-1)
        if padding is not None:
            heard = heard.masked_fill(padding, BLANK)
        written = heard != BLANK
        written[:, 1:] &= heard[:, 1:] != heard[:, :-1]
        return [self._text(row[kept]) for row, kept in zip(heard, written, strict=True)]

    def _text(self, characters: Tensor) -> str:
        return "".join(self.alphabet[character - 1] for character in characters.tolist())

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean over transcripts of -log probability for each character."""
        asked = batch.labels != IGNORE_INDEX
        length = logits.shape[1]
        heard = torch.full((len(logits),), length) if batch.padding is None else (~batch.padding).sum(1)
        return F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            batch.labels.clamp(min=BLANK),
            heard,
            asked.sum(1),
            blank=BLANK,
            zero_infinity=True,
        )

    def eval_step(self, network: nn.Module, batch: Batch) -> Errors:
        """How wrong the transcripts of a batch are."""
        errors = Errors(0, 0, 0, 0)
        for written, characters in zip(self.decode(network(batch), batch.padding), batch.labels, strict=True):
            said = self._text(characters[characters != IGNORE_INDEX])
            words = said.split()
            found = Errors(edits(written.split(), words), len(words), edits(written, said), len(said))
            errors = Errors(*(sum(both) for both in zip(errors, found, strict=True)))
        return errors

    def compute_metrics(self, judged: Sequence[Errors]) -> dict[str, float]:
        """Both rates; above 1 where more is written than there is."""
        words, of_words, characters, of_characters = (sum(part) for part in zip(*judged, strict=True))
        return {self.metric: words / of_words, "character_error_rate": characters / of_characters}


def edits(written: Sequence[Hashable], said: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and replacements that turn one into the other.

    Levenshtein, "Binary Codes Capable of Correcting Deletions, Insertions, and Reversals", 1966; row by row.
    """
    numbers = {thing: number for number, thing in enumerate({*written, *said})}
    targets = np.array([numbers[thing] for thing in said], dtype=np.int64)
    across = np.arange(len(said) + 1)
    row = across
    for thing in written:
        kept = np.minimum(row[1:] + 1, row[:-1] + (targets != numbers[thing]))
        # Insertions along the row: the cheapest place to begin from, at one for each step since.
        row = np.minimum.accumulate(np.concatenate([row[:1] + 1, kept]) - across) + across
    return int(row[-1])


def least_frames(transcript: str) -> int:
    """How many frames a transcript needs: one a character, and a blank between two that are alike."""
    return len(transcript) + sum(one == other for one, other in pairwise(transcript))
