"""Recorded speech: a folder with a subfolder of WAV files for each class, as log-mel frames.

The layout is that of Speech Commands (Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition",
2018): ``validation_list.txt`` and ``testing_list.txt`` name the files of two splits where they are present; without
them speakers are dealt out, a speaker being what a file's name has before ``_nohash_``. Folders whose names begin with
``_`` or a dot, such as ``_background_noise_``, hold no class.

A frame is the logarithm of the energy in triangular bands of equal width in mel, 2595 log10(1 + hertz / 700)
(O'Shaughnessy, "Speech Communication", 1987), less its mean over the clip.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.tasks import SPLITS, Batch, Split, Task, TaskSpec, check_whole
from spaces.tasks.sources.audio import read_wav
from spaces.tasks.sources.folders import class_files, class_of, evenly, existing, largest, split_by_hash, usable

log = logging.getLogger(__name__)
LISTS: Mapping[Split, str] = {"validation": "validation_list.txt", "test": "testing_list.txt"}
WINDOW_S, HOP_S = 0.025, 0.010  # the usual ones of speech recognition
FLOOR = 1e-6  # added to an energy before its logarithm is taken
SILENT = 1e-4  # a clip that never swings farther, of 1, holds no speech


class Recordings(Task):
    """Fraction of clips whose class is told.

    Args:
        folder: the folder of class folders.
        seconds: of a clip; a longer one is cut to its middle, a shorter one padded.
        rate: samples a second; a file of another rate is unusable.
        bands: of the spectrogram.
        classes: at most; those with the most files are kept.
        train: clips to learn from at most, evenly from every class.
        validation: clips that the search judges by at most, likewise.
        test: clips that the front is reported on at most, likewise.
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        seconds: float = 1.0,
        rate: int = 16_000,
        bands: int = 40,
        classes: int = 10,
        train: int = 2000,
        validation: int = 500,
        test: int = 1000,
    ) -> None:
        check_whole(1, bands=bands)
        check_whole(2, classes=classes)
        check_whole(1000, rate=rate)
        if not WINDOW_S <= seconds < math.inf:
            raise ValueError(f"seconds={seconds}: it must be at least {WINDOW_S}")
        self.folder = existing(folder, "a folder of WAV files for each class")
        self.rate = rate
        files = class_files(self.folder, [".wav"])
        if len(files) < 2:
            there = ", ".join(files) or "none"
            raise ValueError(f"folder={str(self.folder)!r}: two class folders of WAV files or more; there are {there}")
        self.names = largest(files, classes)
        most: Mapping[Split, int] = {"train": train, "validation": validation, "test": test}
        splits = self._splits([file for name in self.names for file in files[name]])
        self.files: dict[Split, list[str]] = {
            split: evenly(splits[split], most[split], split, len(self.names)) for split in SPLITS
        }
        for split in SPLITS:
            self._check_classes(split, self.files[split])
        labels = [class_of(file) for file in self.files["validation"]]
        frames = 1 + int((seconds - WINDOW_S) / HOP_S + 1e-6)
        self.spec = TaskSpec(length=frames, features=bands, classes=len(self.names), per_token=False)
        self.chance = max(Counter(labels).values()) / len(labels)  # the best constant guess
        self.skipped = 0

    def _splits(self, files: Sequence[str]) -> dict[Split, list[str]]:
        """As the two lists say, or else about 8 to 1 to 1 speakers in an order that only their names decide."""
        lists = {split: self.folder / name for split, name in LISTS.items()}
        if not any(path.exists() for path in lists.values()):
            speakers = split_by_hash({_speaker(file) for file in files})
            chosen = {split: set(speakers[split]) for split in SPLITS}
            return {split: [file for file in files if _speaker(file) in chosen[split]] for split in SPLITS}
        named: dict[str, Split] = {}
        for split, path in lists.items():
            if not path.exists():
                raise ValueError(f"folder={str(self.folder)!r}: no {path.name}; it has either both lists or none")
            for line in path.read_text().splitlines():
                if named.setdefault(line, split) != split:
                    raise ValueError(f"{path}: {line} stands in both lists")
        there = set(files)
        gone = [file for file in named if class_of(file) in self.names and file not in there]
        if gone:
            log.warning("%d files of the lists are not there, such as %s", len(gone), gone[0])
        return {split: [file for file in files if named.get(file, "train") == split] for split in SPLITS}

    def _check_classes(self, split: Split, files: Iterable[str]) -> None:
        present = set(map(class_of, files))
        if len(present) < 2:
            found = f"all {split} files are of {present.pop()}" if present else f"no {split} files"
            raise ValueError(f"folder={str(self.folder)!r}: {found}; each split needs two classes or more")

    def examples(self, split: Split) -> Batch:
        """Frames ``(clips, length, bands)`` and classes ``(clips,)``; unusable files are counted and left out."""
        kept, clips = usable(self.folder, split, self.files[split], self._frames, (OSError, ValueError))
        self.skipped += len(self.files[split]) - len(kept)
        self._check_classes(split, kept)
        inputs, padding = pad_stack(clips, self.spec.length)
        return Batch(inputs, padding, torch.tensor([self.names.index(class_of(file)) for file in kept]))

    def _frames(self, file: str) -> Tensor:
        samples, rate = read_speech(self.folder / file, self.rate), self.rate
        # As many as the frames cover; rounding must not cost the last frame.
        longest = round(WINDOW_S * rate) + (self.spec.length - 1) * round(HOP_S * rate)
        start = max(0, len(samples) - longest) // 2
        assert self.spec.features is not None
        return log_mel(samples[start : start + longest], rate, self.spec.features)


def pad_stack(clips: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor | None]:
    """Clips ``(frames, bands)`` to ``(clips, length, bands)``, and where there is padding."""
    inputs = torch.stack([F.pad(clip, (0, 0, 0, length - len(clip))) for clip in clips])
    padding = torch.tensor([len(clip) for clip in clips])[:, None] <= torch.arange(length)
    return inputs, padding if padding.any() else None


def read_speech(path: Path, rate: int) -> Tensor:
    """Samples ``(samples,)`` of a WAV file that has ``rate`` a second and is not silent."""
    samples, found = read_wav(path)
    if found != rate:
        raise ValueError(f"{found} samples a second, expected are rate={rate}")
    if samples.abs().max() < SILENT:
        raise ValueError("silent")
    return samples


def log_mel(samples: Tensor, rate: int, bands: int) -> Tensor:
    """``(samples,)`` to ``(frames, bands)``: windows of 25 ms, each 10 ms after the other; each band's mean is 0."""
    frequencies = spectrum(samples, rate)
    energy = mel_bands(rate, 2 * len(frequencies) - 2, bands) @ frequencies.abs().square()
    frames = (energy + FLOOR).log().T
    return frames - frames.mean(0)


def spectrum(samples: Tensor, rate: int) -> Tensor:
    """``(samples,)`` to complex ``(bins // 2 + 1, frames)``, of those windows.

    Raises:
        ValueError: there are fewer samples than in a window.
    """
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    if len(samples) < window:
        raise ValueError(f"{len(samples)} samples, shorter than a window of {window}")
    bins = 1 << (window - 1).bit_length()
    shape = F.pad(torch.hann_window(window), (0, bins - window))
    padded = F.pad(samples, (0, bins - window))  # torch's windows are centred in their bins' number, ours begin there
    return torch.stft(padded, bins, hop, window=shape, center=False, return_complex=True)


def mel_bands(rate: int, bins: int, bands: int) -> Tensor:
    """Triangular weights ``(bands, bins // 2 + 1)``: each rises from the last one's peak to its own and falls again."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    peaks = 700 * (10 ** (torch.linspace(0, highest, bands + 2) / 2595) - 1)
    hertz = torch.arange(bins // 2 + 1) * rate / bins
    below, peak, above = (peaks[at : at + bands, None] for at in range(3))
    return torch.minimum((hertz - below) / (peak - below), (above - hertz) / (above - peak)).clamp(min=0)


def _speaker(file: str) -> str:
    return Path(file).stem.split("_nohash_")[0]
