"""Speech synthesis: generated data, Griffin-Lim, and WAV output."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spaces.tasks import SPLITS, Batch
from spaces.tasks.sources.audio import read_audio
from spaces.tasks.sources.log_mel import mel_bands, spectrum
from spaces.tasks.synthetic.griffin_lim import griffin_lim, magnitudes
from spaces.tasks.synthetic.lexicon import lexicon_of
from spaces.tasks.tts import PAD, Tts

TASK = Tts(train=20, validation=10, test=10)
RATE = 16_000


def texts(task: Tts, inputs: Tensor) -> list[str]:
    ids = [[number for number in row.tolist() if number not in (PAD, task.slot)] for row in inputs]
    return ["".join(task.alphabet[number - 1] for number in row) for row in ids]


def test_a_row_is_a_text_and_one_slot_per_frame() -> None:
    lexicon = set(lexicon_of(40, TASK.alphabet, seed=0))
    for split in SPLITS:
        inputs, padding, _, *_ = TASK.examples(split)
        assert padding is not None
        for row, padded, text in zip(inputs, padding, texts(TASK, inputs), strict=True):
            assert set(text.split(" ")) <= lexicon
            duration = sum(int(TASK.durations[TASK.alphabet.index(letter)]) for letter in text)
            assert row[: len(text)].min() > PAD
            assert (row[len(text) : TASK.characters] == PAD).all()
            assert (row[TASK.characters :][:duration] == TASK.slot).all()
            assert int((~padded).sum()) == TASK.characters + duration


def test_the_frames_of_a_character_depend_on_it_and_its_neighbours_only() -> None:
    """The middle frames of a character depend on it and on its neighbours, and no two characters sound alike."""
    sounds: dict[str, Tensor] = {}
    inputs, _, labels, *_ = TASK.examples("train")
    for row, frames, text in zip(inputs, labels, texts(TASK, inputs), strict=True):
        at, spoken = 0, frames[row == TASK.slot]
        for before, letter, after in zip(f"^{text}", text, [*text[1:], "$"], strict=False):
            duration = int(TASK.durations[TASK.alphabet.index(letter)])
            sound = spoken[at : at + duration]
            torch.testing.assert_close(sounds.setdefault(before + letter + after, sound), sound)
            at += duration
        assert at == len(spoken)
    middles = {letter: sound[len(sound) // 2] for (_, letter, _), sound in sounds.items()}
    pairs = [(a, b) for a in middles for b in middles if a < b]
    assert len(middles) == len(TASK.alphabet)
    assert min((middles[a] - middles[b]).abs().max().item() for a, b in pairs) > 0.5


def test_chance_is_the_error_of_the_mean_frame_and_best_that_of_the_labels() -> None:
    train, validation = TASK.examples("train"), TASK.examples("validation")
    mean = train.labels[train.inputs == TASK.slot].mean(0)
    constant = mean.expand_as(validation.labels)
    assert TASK.compute_metrics([TASK.eval_step(lambda _: constant, validation)])["mel_error"] == pytest.approx(
        TASK.chance
    )
    assert TASK.loss(constant, validation).item() == pytest.approx(TASK.chance, rel=1e-5)
    assert TASK.compute_metrics([TASK.eval_step(lambda _: validation.labels, validation)])["mel_error"] == TASK.best
    elsewhere = validation.labels + 9.0 * (validation.inputs != TASK.slot)[..., None]
    assert TASK.loss(elsewhere, validation).item() == 0, "only slots have labels"


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


def test_griffin_lim_improves_with_every_iteration() -> None:
    magnitude = spectrum(hum(0.4), RATE).abs()
    fits = [misfit(griffin_lim(magnitude, RATE, iterations=iterations), magnitude) for iterations in (0, 1, 4, 16, 60)]
    assert fits == sorted(fits, reverse=True)
    assert fits[-1] < 0.15 < 0.4 < fits[0]


def test_magnitudes_have_the_energy_of_the_mel_bands() -> None:
    samples = hum(0.4)
    bands = mel_bands(RATE, 512, 40)
    energy = (bands @ spectrum(samples, RATE).abs().square()).T
    found = magnitudes(energy, RATE)
    assert found.min() >= 0
    torch.testing.assert_close((bands @ found.square()).T, energy, rtol=0.05, atol=0.01 * energy.max().item())


def test_audio_from_mel_bands_has_nearly_the_same_mel_bands() -> None:
    samples = hum(0.4)
    bands = mel_bands(RATE, 512, 40)
    energy = (bands @ spectrum(samples, RATE).abs().square()).T
    again = griffin_lim(magnitudes(energy, RATE), RATE)
    assert again.shape == samples[: 400 + 160 * (len(energy) - 1)].shape
    back = (bands @ spectrum(again, RATE).abs().square()).T
    assert ((back + 0.01).log() - (energy + 0.01).log()).abs().mean() < 0.4


class Oracle(nn.Module):
    """Predicts the reference frames."""

    def forward(self, batch: Batch) -> Tensor:
        frames = torch.zeros(*batch.inputs.shape, TASK.bands)
        frames[batch.inputs == TASK.slot] = torch.cat([TASK.synthesize(text) for text in texts(TASK, batch.inputs)])
        return frames


def test_the_synthesized_file_has_the_duration_and_spectrum_of_the_text(tmp_path: Path) -> None:
    TASK.speak(Oracle(), "ab cab", tmp_path / "said.wav")
    samples, rate = read_audio(tmp_path / "said.wav")
    frames = TASK.synthesize("ab cab")
    assert (rate, len(samples)) == (RATE, 400 + 160 * (len(frames) - 1))
    energy = mel_bands(RATE, 512, TASK.bands) @ spectrum(samples, RATE).abs().square()
    energy = energy / energy.max() * (frames.exp() - 0.01).max()
    assert ((energy.T + 0.01).log() - frames).abs().mean() < 0.3 * TASK.chance


@pytest.mark.parametrize("text", ["", "a" * 17, "az"])
def test_a_text_that_cannot_be_synthesized_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=rf"text='{text}': it must be 1\.\.16 characters of ' abcdefgh'"):
        TASK.speak(Oracle(), text, tmp_path / "said.wav")
