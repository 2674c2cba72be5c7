"""Non-autoregressive speech synthesis of artificial words: from characters to a log spectrogram; generated.

A row is the characters of a text, then a slot token for each frame of its speech; the label of a slot is its frame. All
frames are predicted in one forward pass, as in Ren et al., "FastSpeech", 2019. Unlike there, durations are not given: a
model must infer the character of a slot from the durations of the characters before it.

Each character is a sound of ``spaces.tasks.synthetic.formants``, in one voice, with a fixed duration; sounds glide into
each other. A frame is the logarithm of the energy in each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.baselines.majority import MeanFrame
from spaces.tasks import SPLITS, Batch, Split, Task, TaskSpec, check_whole, split_generator, split_sizes
from spaces.tasks.sources.audio import write_wav
from spaces.tasks.synthetic.formants import MIN_BANDS, character_formants, energy, timing
from spaces.tasks.synthetic.griffin_lim import griffin_lim, magnitudes
from spaces.tasks.synthetic.lexicon import LONGEST_WORD, alphabet_of, lexicon_of

MIN_FRAMES, MAX_FRAMES = 4, 6  # of a character
PAD = 0  # token id after the last character of a text, and of padding; then come the alphabet and the slot
FLOOR = 0.01  # added to the energy before taking the logarithm
RATE = 16_000  # sample rate of the synthesized audio in hertz


class Tts(Task):
    """Mean absolute error of the natural logarithm of the energy, over all bands of all slots.

    ``labels`` ``(batch, length, bands)`` are frames at the slots, and 0 elsewhere.

    Args:
        characters: maximal characters of a text; the minimum is half of it. The slots begin at this position.
        bands: bands of the spectrogram, at least 8.
        letters: size of the alphabet without the space, 2 to 26.
        lexicon: number of distinct words.
        train: training texts.
        validation: validation texts.
        test: test texts.
        seed: random seed of words and texts.
    """

    metric = "mel_error"
    direction: Literal["maximize", "minimize"] = "minimize"
    best = 0.0
    batch_size = 8

    def __init__(
        self,
        *,
        characters: int = 16,
        bands: int = 20,
        letters: int = 8,
        lexicon: int = 40,
        train: int = 800,
        validation: int = 64,
        test: int = 256,
        seed: int = 0,
    ) -> None:
        check_whole(2 * LONGEST_WORD, characters=characters)
        check_whole(MIN_BANDS, bands=bands)
        check_whole(1, lexicon=lexicon)
        check_whole(0, seed=seed)
        self.alphabet = alphabet_of(letters)
        self.characters, self.bands, self.lexicon, self.seed = characters, bands, lexicon, seed
        self.sizes = split_sizes(train=train, validation=validation, test=test)
        self.slot = 1 + len(self.alphabet)
        self.durations = MIN_FRAMES + torch.arange(len(self.alphabet)) % (MAX_FRAMES - MIN_FRAMES + 1)  # frames
        length = characters * (1 + MAX_FRAMES)
        self.spec = TaskSpec(length=length, vocabulary=1 + self.slot, classes=bands, per_token=True)

    @cached_property
    def chance(self) -> float:  # type: ignore[override]
        """The error in validation of always predicting the mean frame of train."""
        splits = (self.data(split) for split in SPLITS[:2])
        batches = (examples.select(torch.arange(examples.size)) for examples in splits)
        train, validation = (self._at_slots(batch.labels, batch) for batch in batches)
        return (validation - train.mean(0)).abs().mean().item()

    def examples(self, split: Split) -> Batch:
        """Token ids ``(rows, length)`` and frames ``(rows, length, bands)``."""
        generator = split_generator(self.seed, split)
        words = lexicon_of(self.lexicon, self.alphabet, seed=self.seed)
        texts = [self._text(words, generator) for _ in range(self.sizes[split])]
        inputs = torch.full((len(texts), self.spec.length), PAD)
        for row, text in zip(inputs, texts, strict=True):
            tokens = self._tokens(text)
            row[: len(tokens)] = tokens
        labels = torch.zeros(*inputs.shape, self.bands)
        labels[inputs == self.slot] = torch.cat(list(map(self.synthesize, texts)))
        last = ((inputs == self.slot) * torch.arange(self.spec.length)).amax(1, keepdim=True)
        padding = torch.arange(self.spec.length) > last
        return Batch(inputs, padding if padding.any() else None, labels)

    def _text(self, words: Sequence[str], generator: torch.Generator) -> str:
        """Random words that fill a random number of ``characters / 2`` to ``characters``."""
        room = int(torch.randint(self.characters // 2, self.characters + 1, (1,), generator=generator))
        order = torch.randint(len(words), (self.characters,), generator=generator)
        text = " ".join(words[number] for number in order.tolist())
        return text[: text.rindex(" ", 0, room + 1)]

    def _ids(self, text: str) -> Tensor:
        return torch.tensor([self.alphabet.index(letter) for letter in text])

    def _tokens(self, text: str) -> Tensor:
        """The padded characters of a text and its slots."""
        ids = self._ids(text)
        slots = torch.full((int(self.durations[ids].sum()),), self.slot)
        return torch.cat([F.pad(1 + ids, (0, self.characters - len(ids)), value=PAD), slots])

    def synthesize(self, text: str) -> Tensor:
        """The reference frames of a text, ``(frames, bands)``."""
        ids = self._ids(text)
        ends = self.durations[ids].cumsum(0)[None]
        at, envelope = timing(ends, int(ends[0, -1]))
        formants = character_formants(len(self.alphabet), self.bands)[ids[at]]
        frames = energy(formants, torch.zeros(1, 1), self.bands)
        return (frames[0] * envelope[0, :, None] + FLOOR).log()

    def baselines(self) -> Sequence[nn.Module] | None:
        """The mean frame."""
        return (MeanFrame(self.slot),)

    def _at_slots(self, frames: Tensor, batch: Batch) -> Tensor:
        """``(batch, length, bands)`` to the frames at the slots, ``(frames, bands)``."""
        return frames[batch.inputs == self.slot]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean absolute error."""
        return F.l1_loss(self._at_slots(logits, batch), self._at_slots(batch.labels, batch))

    def eval_step(self, network: nn.Module, batch: Batch) -> tuple[float, int]:
        """The sum of the absolute errors, and their number."""
        errors = (self._at_slots(network(batch), batch) - self._at_slots(batch.labels, batch)).abs()
        return errors.sum().item(), errors.numel()

    @torch.no_grad()
    def speak(self, network: nn.Module, text: str, path: Path) -> None:
        """Write the speech that a trained network synthesizes from a text, as a WAV file.

        Raises:
            ValueError: the text is empty or too long, or contains a character outside the alphabet.
        """
        if not 1 <= len(text) <= self.characters or not set(text) <= set(self.alphabet):
            raise ValueError(f"text={text!r}: it must be 1..{self.characters} characters of {self.alphabet!r}")
        network.eval()
        inputs = self._tokens(text)[None]
        batch = Batch(inputs, None, torch.zeros(*inputs.shape, self.bands))
        frames = self._at_slots(network(batch), batch)
        samples = griffin_lim(magnitudes((frames.exp() - FLOOR).clamp(min=0), RATE), RATE)
        write_wav(path, samples * 0.9 / samples.abs().max().clamp(min=1e-6), RATE)
