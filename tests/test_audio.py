"""Audio files: formats, sample values, resampling, and unusable files."""

from __future__ import annotations

import logging
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from audio_files import tone

from spaces.tasks.sources.audio import log_resampled, read_audio, read_speech, resample, write_wav

RATE = 16_000
TOLERANCE = {"wav": 1e-6, "flac": 1e-4, "ogg": 0.05, "mp3": 0.05}  # of samples; the last two formats are lossy


@pytest.mark.parametrize("suffix", TOLERANCE)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read_as_the_mean_of_its_channels(tmp_path: Path, suffix: str, channels: int) -> None:
    left = tone(440, 0.3)
    written = np.stack([left, 0.5 * left], axis=1)[:, :channels]
    soundfile.write(tmp_path / f"a.{suffix}", written, RATE, subtype="FLOAT" if suffix == "wav" else None)
    samples, rate = read_audio(tmp_path / f"a.{suffix}")
    assert (rate, samples.dtype, samples.shape) == (RATE, torch.float32, (4800,))
    assert np.abs(samples.numpy() - written.mean(1))[400:-400].max() < TOLERANCE[suffix]


def test_16_bit_samples_are_exact(tmp_path: Path) -> None:
    integers = np.arange(-(1 << 15), 1 << 15, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", integers, RATE)
    assert torch.equal(read_audio(tmp_path / "a.wav")[0], torch.from_numpy(integers.astype(np.float32) / 32768))


@pytest.mark.parametrize("suffix", TOLERANCE)
@pytest.mark.parametrize("kept", [0, 30, -200])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(440, 0.3), RATE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"truncated: \d+ of \d+|Error|psf_fseek") as error:
        read_audio(path)
    assert "<" not in str(error.value), "no Python object in the message"


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_a_resampled_sine_has_the_same_frequency_amplitude_and_duration(rate: int) -> None:
    samples = resample(torch.from_numpy(tone(440, 0.5, rate=rate)).float(), rate, RATE)
    assert samples.dtype == torch.float32
    assert abs(len(samples) - 0.5 * RATE) <= 1
    expected = torch.from_numpy(tone(440, 0.5, rate=RATE))
    assert (samples[400:7600] - expected[400:7600]).abs().max() < 0.01


def test_frequencies_above_half_of_the_new_rate_are_removed() -> None:
    samples = resample(torch.from_numpy(tone(10_000, 0.5, rate=44_100)), 44_100, RATE)
    assert samples[400:7600].abs().max() < 0.01


def test_speech_is_resampled_and_silence_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(440, 0.5, rate=8000), 8000)
    samples, file_rate = read_speech(tmp_path / "a.flac", RATE)
    assert (len(samples), file_rate) == (8000, 8000)
    soundfile.write(tmp_path / "b.wav", np.zeros(8000), RATE)
    with pytest.raises(ValueError, match="silent"):
        read_speech(tmp_path / "b.wav", RATE)


def test_resampled_files_are_counted_in_one_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_resampled([RATE, RATE], RATE, "train files")
        log_resampled([RATE, 8000, 44_100, 8000], RATE, "test files")
    assert caplog.messages == ["resampled 3 of 4 test files from 8000, 44100 Hz to rate=16000"]


def test_written_files_are_16_bit_and_clipped(tmp_path: Path) -> None:
    values = [-1.0, -0.5, -0.001, 0.0, 0.25, 0.999, 1.0]
    write_wav(tmp_path / "a.wav", torch.tensor([*values, 1.5, -7.0]), 8000)
    samples, rate = read_audio(tmp_path / "a.wav")
    assert (rate, samples.tolist()) == (8000, pytest.approx([*values, 1.0, -1.0], abs=1e-4))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnframes(), file.getsampwidth(), file.getnchannels()) == (9, 2, 1)
    assert math.isclose(samples[4].item(), 8192 / 32768)
