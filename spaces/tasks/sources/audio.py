"""Audio files: read as mono samples at a given rate, written as WAV.

All formats of libsndfile can be read, among them WAV, FLAC, Ogg Vorbis and MP3.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly
from torch import Tensor

log = logging.getLogger(__name__)
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SILENCE = 1e-4  # a clip whose amplitude never exceeds this, of 1, contains no speech


def read_audio(path: Path) -> tuple[Tensor, int]:
    """Samples ``(samples,)`` in -1..1, the mean of the channels, and the sample rate in hertz.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no audio file, or truncated.
    """
    with path.open("rb") as source:
        try:
            with soundfile.SoundFile(source) as file:
                samples, rate, frames = file.read(dtype="float64", always_2d=True), file.samplerate, file.frames
                # libsndfile reads a truncated WAV file up to its end, and mentions it only here.
                truncated = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
        except soundfile.SoundFileError as error:
            raise ValueError(str(error).replace(repr(source), "the file")) from error
    if truncated:
        raise ValueError(f"truncated: {truncated[2]} of {truncated[1]} bytes of samples")
    if len(samples) < frames or not len(samples):
        raise ValueError(f"truncated: {len(samples)} of {frames} samples")
    return torch.from_numpy(samples.mean(1).astype(np.float32)), rate


def resample(samples: Tensor, rate: int, target_rate: int) -> Tensor:
    """``(samples,)`` from one sample rate to another, by polyphase filtering."""
    if rate == target_rate:
        return samples
    common = gcd(rate, target_rate)
    return torch.from_numpy(resample_poly(samples.double().numpy(), target_rate // common, rate // common)).float()


def read_speech(path: Path, rate: int) -> tuple[Tensor, int]:
    """Samples ``(samples,)`` of an audio file, resampled to ``rate``, and the file's own sample rate.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no audio file, truncated or silent.
    """
    samples, file_rate = read_audio(path)
    if samples.abs().max() < SILENCE:
        raise ValueError("silent")
    return resample(samples, file_rate, rate), file_rate


def log_resampled(file_rates: Iterable[int], rate: int, what: str) -> None:
    """Log how many files had another sample rate than the task's; ``what`` names them in the plural."""
    file_rates = list(file_rates)
    others = [found for found in file_rates if found != rate]
    if others:
        found = ", ".join(map(str, sorted(set(others))))
        log.warning("resampled %d of %d %s from %s Hz to rate=%d", len(others), len(file_rates), what, found, rate)


def write_wav(path: Path, samples: Tensor, rate: int) -> None:
    """Write samples ``(samples,)`` as 16-bit WAV; those outside -1..1 are clipped."""
    integers = (samples.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
    soundfile.write(path, integers, rate, subtype="PCM_16", format="WAV")
