"""Speech synthesis: what is asked and generated, the way from a spectrogram to sound, and a file to listen to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spaces.tasks import SPLITS, Batch
from spaces.tasks.recordings import mel_bands, spectrum
from spaces.tasks.sources.audio import read_wav
from spaces.tasks.synthetic.griffin_lim import griffin_lim, magnitudes
from spaces.tasks.synthetic.lexicon import lexicon_of
from spaces.tasks.tts import NOTHING, Tts

TASK = Tts(train=20, validation=10, test=10)
RATE = 16_000


def texts(task: Tts, inputs: Tensor) -> list[str]:
    ids = [[number for number in row.tolist() if number not in (NOTHING, task.slot)] for row in inputs]
    return ["".join(task.alphabet[number - 1] for number in row) for row in ids]


def test_a_row_is_a_text_and_a_slot_for_each_frame_that_it_lasts() -> None:
    lexicon = set(lexicon_of(40, TASK.alphabet, seed=0))
    for split in SPLITS:
        inputs, padding, _, *_ = TASK.examples(split)
        assert padding is not None
        for row, unasked, text in zip(inputs, padding, texts(TASK, inputs), strict=True):
            assert set(text.split(" ")) <= lexicon
            lasts = sum(int(TASK.durations[TASK.alphabet.index(letter)]) for letter in text)
            assert row[: len(text)].min() > NOTHING
            assert (row[len(text) : TASK.characters] == NOTHING).all()
            assert (row[TASK.characters :][:lasts] == TASK.slot).all()
            assert int((~unasked).sum()) == TASK.characters + lasts


def test_the_same_neighbourhood_sounds_the_same_wherever_it_stands() -> None:
    """The middle frames of a character depend on it and on its neighbours, and no two characters sound alike."""
    heard: dict[str, Tensor] = {}
    inputs, _, labels, *_ = TASK.examples("train")
    for row, frames, text in zip(inputs, labels, texts(TASK, inputs), strict=True):
        at, spoken = 0, frames[row == TASK.slot]
        for before, letter, after in zip(f"^{text}", text, [*text[1:], "$"], strict=False):
            lasts = int(TASK.durations[TASK.alphabet.index(letter)])
            sound = spoken[at : at + lasts]
            torch.testing.assert_close(heard.setdefault(before + letter + after, sound), sound)
            at += lasts
        assert at == len(spoken)
    middles = {letter: sound[len(sound) // 2] for (_, letter, _), sound in heard.items()}
    pairs = [(a, b) for a in middles for b in middles if a < b]
    assert len(middles) == len(TASK.alphabet)
    assert min((middles[a] - middles[b]).abs().max().item() for a, b in pairs) > 0.5


def test_the_mean_frame_scores_chance_and_the_frames_themselves_best() -> None:
    learned, judged = TASK.examples("train"), TASK.examples("validation")
    mean = learned.labels[learned.inputs == TASK.slot].mean(0)
    constant = mean.expand_as(judged.labels)
    assert TASK.compute_metrics([TASK.eval_step(lambda _: constant, judged)])["mel_error"] == pytest.approx(TASK.chance)
    assert TASK.loss(constant, judged).item() == pytest.approx(TASK.chance, rel=1e-5)
    assert TASK.compute_metrics([TASK.eval_step(lambda _: judged.labels, judged)])["mel_error"] == TASK.best
    elsewhere = judged.labels + 9.0 * (judged.inputs != TASK.slot)[..., None]
    assert TASK.loss(elsewhere, judged).item() == 0, "only slots are asked"


def hum(seconds: float) -> Tensor:
    """A voice at 120 hertz whose two formants glide."""
    time = torch.arange(round(seconds * RATE)) / RATE
    first, second = 400 + 300 * time / seconds, 2000 - 800 * time / seconds
    tones = [
        sum(torch.exp(-(((120 * n - formant) / 150) ** 2)) for formant in (first, second))
        * torch.sin(2 * math.pi * 120 * n * time)
        for n in range(1, 30)
    ]
    return 0.2 * sum(tones, torch.zeros_like(time))


def misfit(samples: Tensor, magnitude: Tensor) -> float:
    """Spectral convergence: the error of the magnitudes in relation to them."""
    return ((spectrum(samples, RATE).abs() - magnitude).norm() / magnitude.norm()).item()


def test_sound_fits_its_spectrogram_better_with_every_round() -> None:
    magnitude = spectrum(hum(0.4), RATE).abs()
    fits = [misfit(griffin_lim(magnitude, RATE, rounds=rounds), magnitude) for rounds in (0, 1, 4, 16, 60)]
    assert fits == sorted(fits, reverse=True)
    assert fits[-1] < 0.15 < 0.4 < fits[0]


def test_magnitudes_have_the_energy_of_the_bands() -> None:
    samples = hum(0.4)
    bands = mel_bands(RATE, 512, 40)
    energy = (bands @ spectrum(samples, RATE).abs().square()).T
    found = magnitudes(energy, RATE)
    assert found.min() >= 0
    torch.testing.assert_close((bands @ found.square()).T, energy, rtol=0.05, atol=0.01 * energy.max().item())


def test_from_bands_to_sound_and_back() -> None:
    samples = hum(0.4)
    bands = mel_bands(RATE, 512, 40)
    energy = (bands @ spectrum(samples, RATE).abs().square()).T
    again = griffin_lim(magnitudes(energy, RATE), RATE)
    assert again.shape == samples[: 400 + 160 * (len(energy) - 1)].shape
    back = (bands @ spectrum(again, RATE).abs().square()).T
    assert ((back + 0.01).log() - (energy + 0.01).log()).abs().mean() < 0.4


class Knows(nn.Module):
    """Gives the frames that the task would."""

    def forward(self, batch: Batch) -> Tensor:
        frames = torch.zeros(*batch.inputs.shape, TASK.bands)
        frames[batch.inputs == TASK.slot] = torch.cat([TASK._said(text) for text in texts(TASK, batch.inputs)])
        return frames


def test_a_spoken_text_is_a_file_that_lasts_as_long_and_sounds_like_it(tmp_path: Path) -> None:
    TASK.speak(Knows(), "ab cab", tmp_path / "said.wav")
    samples, rate = read_wav(tmp_path / "said.wav")
    frames = TASK._said("ab cab")
    assert (rate, len(samples)) == (RATE, 400 + 160 * (len(frames) - 1))
    energy = mel_bands(RATE, 512, TASK.bands) @ spectrum(samples, RATE).abs().square()
    energy = energy / energy.max() * (frames.exp() - 0.01).max()
    assert ((energy.T + 0.01).log() - frames).abs().mean() < 0.3 * TASK.chance


@pytest.mark.parametrize("text", ["", "a" * 17, "az"])
def test_what_cannot_be_spoken_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=rf"text='{text}': it must be 1\.\.16 characters of ' abcdefgh'"):
        TASK.speak(Knows(), text, tmp_path / "said.wav")
