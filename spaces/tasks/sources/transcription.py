"""Base of speech recognition tasks: CTC loss, greedy decoding, word and character error rate.

A model classifies each frame as a character or a blank. The probability of a transcript is the sum over all alignments
with the frames, in which characters may repeat and blanks may stand between them (Graves et al., "Connectionist
Temporal Classification", 2006), so no alignment is needed for training. Greedy decoding takes the most probable class
of each frame, merges repetitions and drops blanks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.baselines.nearest_recording import NearestRecording
from spaces.tasks import IGNORE_INDEX, Batch, Task

BLANK = 0  # the class of the CTC blank; class 1 + k is the k-th character of the alphabet


class Errors(NamedTuple):
    """Edit distances between hypotheses and reference transcripts, and the lengths of the references."""

    word_edits: int
    words: int
    character_edits: int
    characters: int


class Transcription(Task):
    """Word error rate; the character error rate is reported beside it.

    ``labels`` ``(batch, length)`` hold the characters of the transcript at the first positions, regardless of when they
    are spoken, and ``IGNORE_INDEX`` after them.
    """

    metric = "word_error_rate"
    direction: Literal["maximize", "minimize"] = "minimize"
    best = 0.0
    chance = 1.0  # of empty transcripts
    alphabet: str  # includes the space, which separates words

    def encode(self, transcripts: Sequence[str], length: int) -> Tensor:
        """Labels ``(transcripts, length)``."""
        labels = torch.full((len(transcripts), length), IGNORE_INDEX)
        for row, transcript in zip(labels, transcripts, strict=True):
            row[: len(transcript)] = torch.tensor([1 + self.alphabet.index(letter) for letter in transcript])
        return labels

    def decode(self, logits: Tensor, padding: Tensor | None) -> list[str]:
        """Greedy CTC decoding of ``logits`` ``(batch, length, classes)``."""
        classes = logits.argmax(-1)
        if padding is not None:
            classes = classes.masked_fill(padding, BLANK)
        kept = classes != BLANK
        kept[:, 1:] &= classes[:, 1:] != classes[:, :-1]
        return [self._text(row[keep]) for row, keep in zip(classes, kept, strict=True)]

    def _text(self, classes: Tensor) -> str:
        return "".join(self.alphabet[number - 1] for number in classes.tolist())

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The CTC loss: the mean over transcripts of the negative log probability per character."""
        target_lengths = (batch.labels != IGNORE_INDEX).sum(1)
        real = logits.new_ones(logits.shape[:2]).bool() if batch.padding is None else ~batch.padding
        return F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            batch.labels.clamp(min=BLANK),
            real.sum(1),
            target_lengths,
            blank=BLANK,
            zero_infinity=True,
        )

    def baselines(self) -> Sequence[nn.Module] | None:
        """The transcript of the nearest training recording; the error of the empty transcript is ``chance``."""
        return (NearestRecording(blank=BLANK),)

    def eval_step(self, network: nn.Module, batch: Batch) -> Errors:
        """Edit distances of a batch."""
        errors = Errors(0, 0, 0, 0)
        for hypothesis, label in zip(self.decode(network(batch), batch.padding), batch.labels, strict=True):
            reference = self._text(label[label != IGNORE_INDEX])
            words = reference.split()
            found = Errors(
                edit_distance(hypothesis.split(), words),
                len(words),
                edit_distance(hypothesis, reference),
                len(reference),
            )
            errors = Errors(*(sum(both) for both in zip(errors, found, strict=True)))
        return errors

    def compute_metrics(self, outputs: Sequence[Errors]) -> dict[str, float]:
        """Both error rates; they exceed 1 if the hypotheses are much longer than the references."""
        word_edits, words, character_edits, characters = (sum(column) for column in zip(*outputs, strict=True))
        return {self.metric: word_edits / words, "character_error_rate": character_edits / characters}


def edit_distance(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> int:
    """The Levenshtein distance: the fewest insertions, deletions and substitutions from one to the other.

    Levenshtein, "Binary Codes Capable of Correcting Deletions, Insertions, and Reversals", 1966; row by row.
    """
    numbers = {token: number for number, token in enumerate({*hypothesis, *reference})}
    targets = np.array([numbers[token] for token in reference], dtype=np.int64)
    columns = np.arange(len(reference) + 1)
    row = columns
    for token in hypothesis:
        best = np.minimum(row[1:] + 1, row[:-1] + (targets != numbers[token]))
        # Insertions along the row cost one per column since the cheapest column to start from.
        row = np.minimum.accumulate(np.concatenate([row[:1] + 1, best]) - columns) + columns
    return int(row[-1])


def min_frames(transcript: str) -> int:
    """The fewest frames of a CTC alignment: one per character, and a blank between equal neighbours."""
    return len(transcript) + sum(one == other for one, other in pairwise(transcript))
