"""Speech synthesis over made-up words: characters to the frames of a spectrogram, all at once; generated.

A row holds the characters of a text, then a slot for each frame that it takes to say them, and each slot is asked for
its frame. So a text becomes speech in one pass, as in Ren et al., "FastSpeech", 2019; but where that is told how long
each character lasts, here a model must work out which character a slot belongs to, from how long those before it last.

Each character is a sound of ``spaces.tasks.synthetic.formants``, in one voice, and has a duration of its own; sounds
glide into each other. A frame is the logarithm of the energy in each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.tasks import SPLITS, Batch, Split, Task, TaskSpec, check_whole, split_generator
from spaces.tasks.sources.audio import write_wav
from spaces.tasks.synthetic.formants import LEAST_BANDS, energy, spoken, timing
from spaces.tasks.synthetic.griffin_lim import griffin_lim, magnitudes
from spaces.tasks.synthetic.lexicon import LONGEST_WORD, alphabet_of, lexicon_of

SHORTEST, LONGEST = 4, 6  # frames that a character lasts
NOTHING = 0  # the id after a text's last character, and of padding; the alphabet's follow, then the slot's
FLOOR = 0.01  # added to an energy before its logarithm is taken
RATE = 16_000  # samples a second of what is spoken


class Tts(Task):
    """The mean absolute error over all bands of all frames that are asked for, in natural logarithms of energy.

    ``labels`` ``(batch, length, bands)`` are frames at the slots, and 0 elsewhere.

    Args:
        characters: of the longest text; the shortest ones have half as many. Slots begin after so many tokens.
        bands: of the spectrogram, at least 8.
        letters: of the alphabet besides the space, 2 to 26.
        lexicon: different words.
        train: texts to learn from.
        validation: texts that the search judges by.
        test: texts that the front is reported on.
        seed: of everything drawn; other seeds, other words and texts.
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
        check_whole(LEAST_BANDS, bands=bands)
        check_whole(1, lexicon=lexicon, train=train, validation=validation, test=test)
        check_whole(0, seed=seed)
        self.alphabet = alphabet_of(letters)
        self.characters, self.bands, self.lexicon, self.seed = characters, bands, lexicon, seed
        self.rows = {"train": train, "validation": validation, "test": test}
        self.slot = 1 + len(self.alphabet)
        self.durations = SHORTEST + torch.arange(len(self.alphabet)) % (LONGEST - SHORTEST + 1)  # frames
        length = characters * (1 + LONGEST)
        self.spec = TaskSpec(length=length, vocabulary=1 + self.slot, classes=bands, per_token=True)
        learned, judged = (self._at_slots(examples.labels, examples) for examples in map(self.cached, SPLITS[:2]))
        self.chance = (judged - learned.mean(0)).abs().mean().item()  # of the mean frame

    def examples(self, split: Split) -> Batch:
        """Draw a split: ids ``(rows, length)``, frames ``(rows, length, bands)``."""
        generator = split_generator(self.seed, split)
        words = lexicon_of(self.lexicon, self.alphabet, seed=self.seed)
        texts = [self._text(words, generator) for _ in range(self.rows[split])]
        inputs = torch.full((len(texts), self.spec.length), NOTHING)
        for row, text in zip(inputs, texts, strict=True):
            asking = self._asking(text)
            row[: len(asking)] = asking
        labels = torch.zeros(*inputs.shape, self.bands)
        labels[inputs == self.slot] = torch.cat(list(map(self._said, texts)))
        last = ((inputs == self.slot) * torch.arange(self.spec.length)).amax(1, keepdim=True)
        padding = torch.arange(self.spec.length) > last
        return Batch(inputs, padding if padding.any() else None, labels)

    def _text(self, words: Sequence[str], generator: torch.Generator) -> str:
        """As many words as fit into some number of characters from half to all of the most."""
        room = int(torch.randint(self.characters // 2, self.characters + 1, (1,), generator=generator))
        order = torch.randint(len(words), (self.characters,), generator=generator)
        text = " ".join(words[number] for number in order.tolist())
        return text[: text.rindex(" ", 0, room + 1)]

    def _ids(self, text: str) -> Tensor:
        return torch.tensor([self.alphabet.index(letter) for letter in text])

    def _asking(self, text: str) -> Tensor:
        """Its characters, and as many slots as they last."""
        ids = self._ids(text)
        slots = torch.full((int(self.durations[ids].sum()),), self.slot)
        return torch.cat([F.pad(1 + ids, (0, self.characters - len(ids)), value=NOTHING), slots])

    def _said(self, text: str) -> Tensor:
        """The frames of a text, ``(frames, bands)``."""
        ids = self._ids(text)
        ends = self.durations[ids].cumsum(0)[None]
        at, swell = timing(ends, int(ends[0, -1]))
        heard = energy(spoken(len(self.alphabet), self.bands)[ids[at]], torch.zeros(1, 1), self.bands)
        return (heard[0] * swell[0, :, None] + FLOOR).log()

    def _at_slots(self, frames: Tensor, batch: Batch) -> Tensor:
        """Those of ``(batch, length, bands)`` that are asked for, ``(frames, bands)``."""
        return frames[batch.inputs == self.slot]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean absolute error."""
        return F.l1_loss(self._at_slots(logits, batch), self._at_slots(batch.labels, batch))

    def eval_step(self, network: nn.Module, batch: Batch) -> tuple[float, int]:
        """Absolute errors, summed, and how many."""
        errors = (self._at_slots(network(batch), batch) - self._at_slots(batch.labels, batch)).abs()
        return errors.sum().item(), errors.numel()

    @torch.no_grad()
    def speak(self, network: nn.Module, text: str, path: Path) -> None:
        """Write what a trained network makes of a text, as a WAV file.

        Raises:
            ValueError: the text is empty or too long, or has a character that is not in the alphabet.
        """
        if not 1 <= len(text) <= self.characters or not set(text) <= set(self.alphabet):
            raise ValueError(f"text={text!r}: it must be 1..{self.characters} characters of {self.alphabet!r}")
        network.eval()
        inputs = self._asking(text)[None]
        batch = Batch(inputs, None, torch.zeros(*inputs.shape, self.bands))
        frames = self._at_slots(network(batch), batch)
        samples = griffin_lim(magnitudes((frames.exp() - FLOOR).clamp(min=0), RATE), RATE)
        write_wav(path, samples * 0.9 / samples.abs().max().clamp(min=1e-6), RATE)
