"""Speech recognition over made-up words: which letters are heard, in spectrograms that are generated, not recorded.

Each character is a sound of ``spaces.tasks.synthetic.formants`` and lasts 4 to 8 frames. A row says words of a small
lexicon, and rows differ in length. A voice shifts the second formants alone, by as much as parts those of two letters:
by itself a sound could be either. The space is a neutral sound that resembles no letter, so that it tells the voice, to
mechanisms that reach the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spaces.tasks import Batch, Split, TaskSpec, check_whole, split_generator
from spaces.tasks.sources.transcription import Transcription
from spaces.tasks.synthetic.formants import LEAST_BANDS, energy, spoken, timing
from spaces.tasks.synthetic.lexicon import LONGEST_WORD, SHORTEST_WORD, SPACE, alphabet_of, lexicon_of

SHORTEST, LONGEST = 4, 8  # frames that a character lasts


class Asr(Transcription):
    """Edits to words for each word of the transcripts; see :class:`Transcription`.

    Args:
        length: frames of the longest row; the shortest ones have half as many.
        bands: of the spectrogram, at least 8.
        letters: of the alphabet besides the space, 2 to 26.
        lexicon: different words.
        shift: bands between the middle of all voices and the ends of their range, second formants alone.
        noise: standard deviation; a formant's peak is about 1.
        train: rows to learn from.
        validation: rows that the search judges by.
        test: rows that the front is reported on.
        seed: of everything drawn; other seeds, other words and rows.
    """

    batch_size = 8

    def __init__(
        self,
        *,
        length: int = 160,
        bands: int = 20,
        letters: int = 8,
        lexicon: int = 40,
        shift: float = 2.0,
        noise: float = 0.1,
        train: int = 600,
        validation: int = 64,
        test: int = 256,
        seed: int = 0,
    ) -> None:
        check_whole(2 * LONGEST * LONGEST_WORD, length=length)
        check_whole(LEAST_BANDS, bands=bands)
        check_whole(1, lexicon=lexicon, train=train, validation=validation, test=test)
        check_whole(0, seed=seed)
        for name, value in (("shift", shift), ("noise", noise)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: it must be at least 0")
        self.bands, self.lexicon, self.shift, self.noise, self.seed = bands, lexicon, shift, noise, seed
        self.alphabet = alphabet_of(letters)
        self.rows = {"train": train, "validation": validation, "test": test}
        self.spec = TaskSpec(length=length, features=bands, classes=1 + len(self.alphabet), per_token=True)

    def examples(self, split: Split) -> Batch:
        """Draw a split: frames ``(rows, length, bands)``, transcripts ``(rows, length)``."""
        generator = split_generator(self.seed, split)
        rows, length = self.rows[split], self.spec.length
        words = lexicon_of(self.lexicon, self.alphabet, seed=self.seed)
        said = [self._said(words, generator) for _ in range(rows)]
        durations = pad_sequence([spans for _, spans in said], batch_first=True)
        transcripts = [text for text, _ in said]
        sounds = (self.encode(transcripts, durations.shape[1]) - 1).clamp(min=SPACE)

        ends = durations.cumsum(1)
        at, swell = timing(ends, length)
        formants = spoken(len(self.alphabet), self.bands)[sounds.gather(1, at)]
        higher = F.pad(self.shift * (2 * torch.rand(rows, 1, generator=generator) - 1), (1, 0))
        loudness = (0.6 + 0.8 * torch.rand(rows, 1, generator=generator)) * swell
        frames = energy(formants, higher, self.bands) * loudness[..., None]
        frames = frames + self.noise * torch.randn(frames.shape, generator=generator)
        padding = torch.arange(length) >= ends[:, -1:]
        return Batch(frames.masked_fill(padding[..., None], 0.0), padding, self.encode(transcripts, length))

    def _said(self, words: Sequence[str], generator: torch.Generator) -> tuple[str, Tensor]:
        """As many words as fit into some length from half to all of ``length``, and each character's frames."""

        def draw(low: int, high: int, count: int) -> Tensor:
            return torch.randint(low, high + 1, (count,), generator=generator)

        room = int(draw(self.spec.length // 2, self.spec.length, 1))
        order = draw(0, len(words) - 1, room // (SHORTEST_WORD * SHORTEST) + 1).tolist()
        text = " ".join(words[number] for number in order)
        ends = draw(SHORTEST, LONGEST, len(text))
        fits = int((ends.cumsum(0) <= room).sum())
        text = text[: text.rindex(" ", 0, fits + 1)]
        return text, ends[: len(text)]
