"""Formant keywords: which two sounds, in which order, and whose voice; spectrograms that are generated, not recorded.

A row is one utterance, its sounds in random order: a *key* sound, once; its *partner*, several times, nearer to the key
rather than farther; pauses; and *fillers* that mean nothing. A keyword is the pair of key and partner in the order in
which they are heard. Each frame is of one kind:

* of a partner: asked which key the row has, and whether that comes before or after. A window that reaches the key
  answers this, as does attention that reaches farther; an average of all frames knows the key and not the order;
* of a pause: asked who speaks, which only the sounds around tell, and the more of them the better;
* of the key or a filler: asked for nothing.

The sounds are those of ``spaces.tasks.synthetic.formants``; duration and loudness vary, and there is noise in every
band.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator
from spaces.tasks.synthetic.formants import LEAST_BANDS, chart, energy, timing

FILLERS = 2  # different ones
LEAST_FRAMES = 4  # per sound on average, so that each one is heard


class Speech(Task):
    """Fraction of right answers over all frames of partners and pauses.

    Args:
        length: frames in a row, at least 4 for each sound.
        bands: of the spectrogram, at least 8.
        sounds: in a row, pauses included; more are shorter, and stand farther apart from each other in sounds.
        keys: different key sounds.
        partners: times that the partner is heard in a row.
        pauses: in a row; with the key and the partners at most ``sounds``.
        voices: different speakers.
        shift: bands between the middle of all voices and the ends of their range.
        noise: standard deviation; a formant's peak is about 1.
        train: rows to learn from.
        validation: rows that the search judges by.
        test: rows that the front is reported on.
        seed: of everything drawn; other seeds, other rows.
    """

    batch_size = 4  # each row asks some 150 questions

    def __init__(
        self,
        *,
        length: int = 256,
        bands: int = 20,
        sounds: int = 24,
        keys: int = 3,
        partners: int = 10,
        pauses: int = 4,
        voices: int = 3,
        shift: float = 1.2,
        noise: float = 0.2,
        train: int = 160,
        validation: int = 64,
        test: int = 256,
        seed: int = 0,
    ) -> None:
        check_whole(LEAST_BANDS, bands=bands)
        check_whole(1, keys=keys, voices=voices, partners=partners, train=train, validation=validation, test=test)
        check_whole(0, pauses=pauses, seed=seed)
        check_whole(1 + partners + pauses, sounds=sounds)
        check_whole(LEAST_FRAMES * sounds, length=length)
        for name, value in (("shift", shift), ("noise", noise)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: it must be at least 0")
        self.bands = bands
        self.sounds, self.keys, self.partners, self.pauses, self.voices = sounds, keys, partners, pauses, voices
        self.shift, self.noise, self.seed = shift, noise, seed
        self.rows = {"train": train, "validation": validation, "test": test}
        self.partner = keys  # sounds are numbered: keys, the partner, fillers
        self.spec = TaskSpec(length=length, features=bands, classes=2 * keys + voices, per_token=True)
        asked = partners + pauses
        self.chance = max(partners / asked / (2 * keys), pauses / asked / voices)  # the best constant guess

    def examples(self, split: Split) -> Batch:
        """Draw a split: frames ``(rows, length, bands)``; ``labels`` ``(rows, length)`` are what is asked.

        Keywords are ``2 * key``, and one more where the partner comes first; voices are ``2 * keys + voice``.
        """
        generator = split_generator(self.seed, split)
        rows = self.rows[split]

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator)

        def chance(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        key, voice = draw(self.keys, rows, 1), draw(self.voices, rows, 1)
        place = draw(self.sounds, rows, 1)
        apart = (torch.arange(self.sounds) - place).abs()
        # Times a random share: the near places are likelier, and there are questions at all distances.
        partners = (apart * chance(rows, self.sounds)).scatter(1, place, torch.inf).argsort(1)[:, : self.partners]
        taken = torch.cat([place, partners], dim=1)
        pauses = chance(rows, self.sounds).scatter(1, taken, torch.inf).argsort(1)[:, : self.pauses]

        sounds = self.partner + 1 + draw(FILLERS, rows, self.sounds)
        sounds.scatter_(1, place, key).scatter_(1, partners, self.partner)
        asked = torch.full_like(sounds, IGNORE_INDEX).scatter_(1, partners, 2 * key + (partners < place))
        asked.scatter_(1, pauses, (2 * self.keys + voice).expand_as(pauses))
        loudness = (0.6 + 0.8 * chance(rows, 1)).expand_as(sounds).scatter(1, pauses, 0.0)

        durations = 0.5 + chance(rows, self.sounds)  # relative to each other
        ends = durations.cumsum(1) / durations.sum(1, keepdim=True) * self.spec.length
        at, swell = timing(ends, self.spec.length)
        higher = self.shift * ((2 * voice + 1) / self.voices - 1)
        heard = energy(self.chart()[sounds.gather(1, at)], higher, self.bands)
        heard = heard * (loudness.gather(1, at) * swell)[..., None]
        noise = self.noise * torch.randn(heard.shape, generator=generator)
        return Batch(heard + noise, None, asked.gather(1, at))

    def chart(self) -> Tensor:
        """The formants of each sound in the middle voice, in bands ``(sounds, 2)``."""
        return chart(self.partner + 1 + FILLERS, self.bands)
