"""Speech classification on the user's own recordings, a folder of audio files per class, as log-mel frames.

The layout is that of Speech Commands (Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition",
2018): if present, ``validation_list.txt`` and ``testing_list.txt`` name the files of these splits. Without them
speakers are split 8:1:1, a speaker being the part of the file name before ``_nohash_``. Folders whose names begin with
``_`` or a dot, such as ``_background_noise_``, are no classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from spaces.tasks import SPLITS, Batch, Examples, Split, Task, TaskSpec, check_whole, majority_share, split_sizes
from spaces.tasks.sources.audio import SUFFIXES, log_resampled, read_speech
from spaces.tasks.sources.bad_rows import iterate_usable
from spaces.tasks.sources.folders import class_files, class_numbers, class_of, existing_folder
from spaces.tasks.sources.log_mel import HOP_S, WINDOW_S, Clip, frames_in, log_mel, pad_stack
from spaces.tasks.sources.splits import balanced, largest_classes, split_by_hash
from spaces.tasks.sources.stored import CHUNK, LARGE, Chunk, cache_name, stored_examples

log = logging.getLogger(__name__)
LISTS: Mapping[Split, str] = {"validation": "validation_list.txt", "test": "testing_list.txt"}


class Recordings(Task):
    """Accuracy of speech classification.

    A clip takes ``4 * bands`` bytes of memory per frame, a hundredth of a second. If a split would take more than
    ``LARGE`` bytes, its frames are in memory-mapped files, see :mod:`spaces.tasks.sources.stored`.

    Args:
        folder: contains the class folders.
        seconds: duration of a clip; longer ones are cropped to their middle, shorter ones padded.
        rate: sample rate in hertz; files of other rates are resampled.
        bands: mel bands of the spectrogram.
        classes: number of classes at most; those with the most files are kept.
        train: training clips at most, equally many of each class.
        validation: validation clips at most, likewise.
        test: test clips at most, likewise.
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        seconds: float = 1.0,
        rate: int = 16_000,
        bands: int = 40,
        classes: int = 10,
        train: int = 20_000,
        validation: int = 2000,
        test: int = 5000,
    ) -> None:
        check_whole(1, bands=bands)
        check_whole(2, classes=classes)
        check_whole(1000, rate=rate)
        if not WINDOW_S <= seconds < math.inf:
            raise ValueError(f"seconds={seconds}: it must be at least {WINDOW_S}")
        self.folder = existing_folder(folder, "a folder of audio files for each class")
        self.rate = rate
        files = class_files(self.folder, SUFFIXES)
        if len(files) < 2:
            there = ", ".join(files) or "none"
            needed = f"it takes two class folders or more with files ending in {', '.join(SUFFIXES)}"
            raise ValueError(f"folder={str(self.folder)!r}: {needed}; there are {there}")
        self.class_names = tuple(sorted(largest_classes({name: len(files[name]) for name in files}, classes)))
        limits = split_sizes(train=train, validation=validation, test=test)
        splits = self._splits([file for name in self.class_names for file in files[name]])
        self.files: dict[Split, list[str]] = {
            split: balanced(splits[split], limits[split], split, len(self.class_names), label=class_of)
            for split in SPLITS
        }
        for split in SPLITS:
            self._check_classes(split, self.files[split])
        self.spec = TaskSpec(length=frames_in(seconds), features=bands, classes=len(self.class_names), per_token=False)
        self.chance = majority_share(map(class_of, self.files["validation"]))

    def _splits(self, files: Sequence[str]) -> dict[Split, list[str]]:
        """By the two lists if present, else by speaker."""
        lists = {split: self.folder / name for split, name in LISTS.items()}
        if not any(path.exists() for path in lists.values()):
            return split_by_hash(files, key=_speaker)
        listed: dict[str, Split] = {}
        for split, path in lists.items():
            if not path.exists():
                raise ValueError(f"folder={str(self.folder)!r}: no {path.name}; give both lists or none")
            for line in _lines(path):
                if listed.setdefault(line, split) != split:
                    raise ValueError(f"{path}: {line} is in both lists")
        there = set(files)
        missing = [file for file in listed if class_of(file) in self.class_names and file not in there]
        if missing:
            log.warning("%d files of the lists do not exist, such as %s", len(missing), missing[0])
        return {split: [file for file in files if listed.get(file, "train") == split] for split in SPLITS}

    def _check_classes(self, split: Split, files: Iterable[str]) -> None:
        present = set(map(class_of, files))
        if len(present) < 2:
            found = f"all {split} files are of {present.pop()}" if present else f"no {split} files"
            raise ValueError(f"folder={str(self.folder)!r}: {found}; each split needs two classes or more")

    def examples(self, split: Split) -> Examples:
        """Frames ``(clips, length, bands)`` and classes ``(clips,)``.

        Unusable files are skipped with a warning; those of stored clips when they are stored.
        """
        files, length, bands = self.files[split], self.spec.length, self.spec.features
        if 4 * len(files) * length * (bands or 1) >= LARGE:
            settings = ["recordings", length, bands, self.rate, self.class_names, files]
            name = cache_name([self.folder / file for file in files], settings)
            stored = stored_examples(name, lambda: self._chunks(split))
            stored.length = length
            return stored
        usable = list(self._usable(split))
        labels = class_numbers([file for file, _ in usable], self.class_names)
        return Batch(*pad_stack([clip.frames for _, clip in usable], length), torch.from_numpy(labels))

    def _chunks(self, split: Split) -> Iterator[Chunk]:
        usable = self._usable(split)
        while part := list(islice(usable, CHUNK)):
            frames = [clip.frames.numpy() for _, clip in part]
            lengths = np.array([len(each) for each in frames])
            labels = class_numbers([file for file, _ in part], self.class_names)
            yield Chunk(np.concatenate(frames), lengths, labels)

    def _usable(self, split: Split) -> Iterator[tuple[str, Clip]]:
        """The files that can be read; the others, and other sample rates, are reported at the end."""
        kept, rates = list[str](), list[int]()
        for file, clip in iterate_usable(self.folder, split, self.files[split], self._read, (OSError, ValueError)):
            kept.append(file)
            rates.append(clip.file_rate)
            yield file, clip
        log_resampled(rates, self.rate, f"{split} files")
        self._check_classes(split, kept)

    def _read(self, file: str) -> Clip:
        samples, file_rate = read_speech(self.folder / file, self.rate)
        # The number of samples that the frames cover, each rounded so that the last frame is not lost.
        longest = round(WINDOW_S * self.rate) + (self.spec.length - 1) * round(HOP_S * self.rate)
        start = max(0, len(samples) - longest) // 2
        assert self.spec.features is not None
        return Clip(log_mel(samples[start : start + longest], self.rate, self.spec.features), file_rate)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no text in UTF-8; it must be a list of files, a line each") from None


def _speaker(file: str) -> str:
    return Path(file).stem.split("_nohash_")[0]
