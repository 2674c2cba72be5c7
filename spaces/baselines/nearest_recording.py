"""Transcription by lookup: the transcript of the training recording whose spectrogram is the nearest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.baselines import Baseline, one_hot_logits, training_rows
from spaces.tasks import IGNORE_INDEX, Batch, Task

SEGMENTS = 16  # of a spectrogram, each averaged, for the comparison
MAX_RECORDINGS = 2_000


class NearestRecording(Baseline):
    """The Euclidean distance of spectrograms decides. What does not fit into the frames is cut off.

    Args:
        blank: the class of the CTC blank.
    """

    name = "nearest training recording"

    def __init__(self, *, blank: int) -> None:
        super().__init__()
        self.blank = blank

    def fit(self, task: Task) -> None:
        """See :meth:`Baseline.fit`."""
        self.length, self.classes = task.spec.length, task.spec.classes
        examples = training_rows(task, MAX_RECORDINGS)
        self.recordings = self._segments(examples)
        self.alignments = [self._alignment(label[label != IGNORE_INDEX].tolist()) for label in examples.labels]

    def forward(self, batch: Batch) -> Tensor:
        """See :meth:`Baseline.forward`."""
        classes = torch.full(batch.inputs.shape[:2], self.blank)
        nearest = torch.cdist(self._segments(batch), self.recordings).argmin(1)
        for row, at in zip(classes, nearest.tolist(), strict=True):
            alignment = self.alignments[at][: len(row)]
            row[: len(alignment)] = alignment
        return one_hot_logits(classes, self.classes)

    def _segments(self, batch: Batch) -> Tensor:
        """The averages over segments of equal length, ``(batch, segments * features)``."""
        frames = batch.inputs
        if batch.padding is not None:
            frames = frames.masked_fill(batch.padding[..., None], 0.0)
        frames = F.pad(frames, (0, 0, 0, self.length - frames.shape[1]))  # batches are cut to their longest example
        return F.adaptive_avg_pool1d(frames.mT, SEGMENTS).flatten(1)

    def _alignment(self, characters: list[int]) -> Tensor:
        """A frame for each character, and a blank between equal ones."""
        frames: list[int] = []
        for character in characters:
            frames += [self.blank, character] if frames[-1:] == [character] else [character]
        return torch.tensor(frames, dtype=torch.int64)
