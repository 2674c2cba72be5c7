"""Keyword spotting in generated spectrograms: a pair of sounds, their order, and the speaker's voice.

A row is an utterance of sounds in random order: a *key* sound, once; a *partner* sound, several times, more often near
the key than far from it; pauses; and *fillers* without meaning. A keyword is the pair of key and partner in their
order. The label of a frame depends on its sound:

* partner: which key the row has, and whether the key comes before or after. This takes a window that reaches the key,
  or global attention; an average over all frames yields the key but not the order;
* pause: the speaker, which only the surrounding sounds reveal, and the more of them the better;
* key or filler: no label.

The sounds are those of ``spaces.tasks.synthetic.formants``; duration and loudness vary, and every band has noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator, split_sizes
from spaces.tasks.synthetic.formants import MIN_BANDS, energy, formant_chart, timing

FILLERS = 2  # number of distinct fillers
MIN_FRAMES = 4  # per sound on average


class Speech(Task):
    """Accuracy over all frames of partners and pauses.

    Args:
        length: frames per row, at least 4 for each sound.
        bands: bands of the spectrogram, at least 8.
        sounds: sounds per row, including pauses; more sounds are shorter, and more of them lie between key and partner.
        keys: number of distinct key sounds.
        partners: number of partners per row.
        pauses: number of pauses per row; with the key and the partners at most ``sounds``.
        voices: number of speakers.
        shift: maximal shift of the formants by a voice, in bands.
        noise: standard deviation of the noise; the peak of a formant is about 1.
        train: training rows.
        validation: validation rows.
        test: test rows.
        seed: random seed of the rows.
    """

    batch_size = 4  # each row has about 150 labels

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
        check_whole(MIN_BANDS, bands=bands)
        check_whole(1, keys=keys, voices=voices, partners=partners)
        check_whole(0, pauses=pauses, seed=seed)
        check_whole(1 + partners + pauses, sounds=sounds)
        check_whole(MIN_FRAMES * sounds, length=length)
        for name, value in (("shift", shift), ("noise", noise)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: it must be at least 0")
        self.bands = bands
        self.sounds, self.keys, self.partners, self.pauses, self.voices = sounds, keys, partners, pauses, voices
        self.shift, self.noise, self.seed = shift, noise, seed
        self.sizes = split_sizes(train=train, validation=validation, test=test)
        self.partner = keys  # sounds are numbered: keys, the partner, fillers
        self.spec = TaskSpec(length=length, features=bands, classes=2 * keys + voices, per_token=True)
        labelled = partners + pauses
        self.chance = max(partners / labelled / (2 * keys), pauses / labelled / voices)  # the majority class

    def examples(self, split: Split) -> Batch:
        """Frames ``(rows, length, bands)`` and labels ``(rows, length)``.

        The class of a keyword is ``2 * key``, plus 1 if the partner comes first; that of a voice ``2 * keys + voice``.
        """
        generator = split_generator(self.seed, split)
        rows = self.sizes[split]

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        key, voice = draw(self.keys, rows, 1), draw(self.voices, rows, 1)
        place = draw(self.sounds, rows, 1)
        apart = (torch.arange(self.sounds) - place).abs()
        # Random factors: near positions are more frequent, but all distances occur.
        partners = (apart * uniform(rows, self.sounds)).scatter(1, place, torch.inf).argsort(1)[:, : self.partners]
        taken = torch.cat([place, partners], dim=1)
        pauses = uniform(rows, self.sounds).scatter(1, taken, torch.inf).argsort(1)[:, : self.pauses]

        sounds = self.partner + 1 + draw(FILLERS, rows, self.sounds)
        sounds.scatter_(1, place, key).scatter_(1, partners, self.partner)
        labels = torch.full_like(sounds, IGNORE_INDEX).scatter_(1, partners, 2 * key + (partners < place))
        labels.scatter_(1, pauses, (2 * self.keys + voice).expand_as(pauses))
        loudness = (0.6 + 0.8 * uniform(rows, 1)).expand_as(sounds).scatter(1, pauses, 0.0)

        durations = 0.5 + uniform(rows, self.sounds)  # relative to each other
        ends = durations.cumsum(1) / durations.sum(1, keepdim=True) * self.spec.length
        at, envelope = timing(ends, self.spec.length)
        voice_shift = self.shift * ((2 * voice + 1) / self.voices - 1)
        frames = energy(self.formants()[sounds.gather(1, at)], voice_shift, self.bands)
        frames = frames * (loudness.gather(1, at) * envelope)[..., None]
        noise = self.noise * torch.randn(frames.shape, generator=generator)
        return Batch(frames + noise, None, labels.gather(1, at))

    def formants(self) -> Tensor:
        """The formants of each sound without a shift by the voice, in bands ``(sounds, 2)``."""
        return formant_chart(self.partner + 1 + FILLERS, self.bands)
