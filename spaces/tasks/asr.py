"""Speech recognition of artificial words in generated spectrograms.

Each character is a sound of ``spaces.tasks.synthetic.formants`` of 4 to 8 frames. A row is a sequence of words of a
small lexicon; rows differ in length. The speaker's voice shifts the second formants only, by as much as the distance
between two letters, so that a sound alone is ambiguous. The space is a neutral sound that resembles no letter and so
reveals the voice, to mechanisms that reach the next space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spaces.tasks import Batch, Split, TaskSpec, check_whole, split_generator, split_sizes
from spaces.tasks.sources.transcription import Transcription
from spaces.tasks.synthetic.formants import MIN_BANDS, character_formants, energy, timing
from spaces.tasks.synthetic.lexicon import LONGEST_WORD, SHORTEST_WORD, SPACE, alphabet_of, lexicon_of

MIN_FRAMES, MAX_FRAMES = 4, 8  # of a character


class Asr(Transcription):
    """Word error rate; see :class:`Transcription`.

    Args:
        length: maximal number of frames; the minimum is half of it.
        bands: bands of the spectrogram, at least 8.
        letters: size of the alphabet without the space, 2 to 26.
        lexicon: number of distinct words.
        shift: maximal shift of the second formants by a voice, in bands.
        noise: standard deviation of the noise; the peak of a formant is about 1.
        train: training rows.
        validation: validation rows.
        test: test rows.
        seed: random seed of words and rows.
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
        check_whole(2 * MAX_FRAMES * LONGEST_WORD, length=length)
        check_whole(MIN_BANDS, bands=bands)
        check_whole(1, lexicon=lexicon)
        check_whole(0, seed=seed)
        for name, value in (("shift", shift), ("noise", noise)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: it must be at least 0")
        self.bands, self.lexicon, self.shift, self.noise, self.seed = bands, lexicon, shift, noise, seed
        self.alphabet = alphabet_of(letters)
        self.sizes = split_sizes(train=train, validation=validation, test=test)
        self.spec = TaskSpec(length=length, features=bands, classes=1 + len(self.alphabet), per_token=True)

    def examples(self, split: Split) -> Batch:
        """Frames ``(rows, length, bands)`` and transcripts ``(rows, length)``."""
        generator = split_generator(self.seed, split)
        rows, length = self.sizes[split], self.spec.length
        words = lexicon_of(self.lexicon, self.alphabet, seed=self.seed)
        utterances = [self._utterance(words, generator) for _ in range(rows)]
        durations = pad_sequence([frames for _, frames in utterances], batch_first=True)
        transcripts = [text for text, _ in utterances]
        sounds = (self.encode(transcripts, durations.shape[1]) - 1).clamp(min=SPACE)

        ends = durations.cumsum(1)
        at, envelope = timing(ends, length)
        formants = character_formants(len(self.alphabet), self.bands)[sounds.gather(1, at)]
        voice_shift = F.pad(self.shift * (2 * torch.rand(rows, 1, generator=generator) - 1), (1, 0))
        loudness = (0.6 + 0.8 * torch.rand(rows, 1, generator=generator)) * envelope
        frames = energy(formants, voice_shift, self.bands) * loudness[..., None]
        frames = frames + self.noise * torch.randn(frames.shape, generator=generator)
        padding = torch.arange(length) >= ends[:, -1:]
        return Batch(frames.masked_fill(padding[..., None], 0.0), padding, self.encode(transcripts, length))

    def _utterance(self, words: Sequence[str], generator: torch.Generator) -> tuple[str, Tensor]:
        """A text of random words that fills a random length of ``length / 2`` to ``length``, and its durations."""

        def draw(low: int, high: int, count: int) -> Tensor:
            return torch.randint(low, high + 1, (count,), generator=generator)

        room = int(draw(self.spec.length // 2, self.spec.length, 1))
        order = draw(0, len(words) - 1, room // (SHORTEST_WORD * MIN_FRAMES) + 1).tolist()
        text = " ".join(words[number] for number in order)
        durations = draw(MIN_FRAMES, MAX_FRAMES, len(text))
        fitting = int((durations.cumsum(0) <= room).sum())
        text = text[: text.rindex(" ", 0, fitting + 1)]
        return text, durations[: len(text)]
