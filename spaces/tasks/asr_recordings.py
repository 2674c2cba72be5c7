"""Speech recognition on your recordings: WAV files, and a table that says what is said in each.

The table has a line of column names, then a line for each file: ``path``, beside the table or in its folder ``clips``;
``sentence`` or ``transcript``, which is taken in lower case; and, where known, ``client_id`` or ``speaker``. Columns
are parted by tabs, or in a ``.csv`` file by commas. That is how Common Voice lists its clips (Ardila et al., "Common
Voice: A Massively-Multilingual Speech Corpus", 2020). Speakers are dealt out to the splits, or else files.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from spaces.tasks import SPLITS, Batch, Split, TaskSpec, check_whole
from spaces.tasks.recordings import HOP_S, WINDOW_S, log_mel, pad_stack, read_speech
from spaces.tasks.sources.folders import digest, split_by_hash, usable
from spaces.tasks.sources.transcription import Transcription, least_frames

TEXT, SPEAKER = ("sentence", "transcript"), ("client_id", "speaker")  # what columns may be called


class Said(NamedTuple):
    """What a line of the table tells."""

    text: str
    speaker: str


class AsrRecordings(Transcription):
    """Edits to words for each word of the transcripts; see :class:`Transcription`.

    The alphabet is that of the training transcripts.

    Args:
        table: the file that lists the recordings.
        seconds: of the longest recording; longer ones are unusable, for nobody says where their words stand.
        rate: samples a second; a file of another rate is unusable.
        bands: of the spectrogram.
        train: recordings to learn from at most.
        validation: recordings that the search judges by at most.
        test: recordings that the front is reported on at most.
    """

    batch_size = 8

    def __init__(
        self,
        *,
        table: str | None = None,
        seconds: float = 10.0,
        rate: int = 16_000,
        bands: int = 40,
        train: int = 2000,
        validation: int = 200,
        test: int = 500,
    ) -> None:
        check_whole(1, bands=bands, train=train, validation=validation, test=test)
        check_whole(1000, rate=rate)
        if not WINDOW_S <= seconds < float("inf"):
            raise ValueError(f"seconds={seconds}: it must be at least {WINDOW_S}")
        if table is None:
            raise ValueError("table=None: name a file that lists WAV files and what is said in them")
        self.table, self.seconds, self.rate, self.bands = Path(table).expanduser(), seconds, rate, bands
        if not self.table.is_file():
            raise ValueError(f"table={table!r}: no such file")
        self.said = self._read()
        speakers = split_by_hash({said.speaker for said in self.said.values()})
        chosen = {split: set(speakers[split]) for split in SPLITS}
        most: Mapping[Split, int] = {"train": train, "validation": validation, "test": test}
        self.files = {
            split: sorted((file for file in self.said if self.said[file].speaker in chosen[split]), key=digest)[
                : most[split]
            ]
            for split in SPLITS
        }
        for split in SPLITS:
            if not self.files[split]:
                raise ValueError(f"table={table!r}: no {split} files; it takes three speakers or more, or three files")
        letters = set("".join(self.said[file].text for file in self.files["train"])) - {" "}
        self.alphabet = " " + "".join(sorted(letters))
        length = 1 + int((seconds - WINDOW_S) / HOP_S + 1e-6)
        self.spec = TaskSpec(length=length, features=bands, classes=1 + len(self.alphabet), per_token=True)
        self.skipped = 0

    def _read(self) -> dict[str, Said]:
        """The lines of the table by path."""
        where = f"table={str(self.table)!r}"
        with self.table.open(newline="", encoding="utf-8") as file:
            commas = self.table.suffix.lower() == ".csv"
            lines = csv.DictReader(file, delimiter="," if commas else "\t", quoting=csv.QUOTE_MINIMAL if commas else 3)
            columns = lines.fieldnames or ()
            text, speaker = (next((name for name in known if name in columns), None) for known in (TEXT, SPEAKER))
            if "path" not in columns or text is None:
                found = ", ".join(columns) or "none"
                raise ValueError(f"{where}: its columns must include path and {' or '.join(TEXT)}; there are {found}")
            said = dict[str, Said]()
            for number, line in enumerate(lines, start=2):
                path, words = line["path"], " ".join((line[text] or "").lower().split())
                if not path or not words:
                    raise ValueError(f"{where}: line {number} names no file, or nothing is said in it")
                if path in said:
                    raise ValueError(f"{where}: line {number} names {path} again")
                said[path] = Said(words, (speaker and line[speaker]) or path)
        return said

    def examples(self, split: Split) -> Batch:
        """Frames ``(recordings, length, bands)`` and transcripts; unusable files are counted and left out."""
        kept, clips = usable(self.table.parent, split, self.files[split], self._frames, (OSError, ValueError))
        self.skipped += len(self.files[split]) - len(kept)
        inputs, padding = pad_stack(clips, self.spec.length)
        return Batch(inputs, padding, self.encode([self.said[file].text for file in kept], self.spec.length))

    def _frames(self, file: str) -> Tensor:
        text = self.said[file].text
        unknown = "".join(sorted(set(text) - set(self.alphabet)))
        if unknown:
            raise ValueError(f"no training transcript has {unknown!r}")
        path = self.table.parent / file
        samples = read_speech(path if path.exists() else self.table.parent / "clips" / file, self.rate)
        frames = log_mel(samples, self.rate, self.bands)
        if len(frames) > self.spec.length:
            raise ValueError(f"{len(samples) / self.rate:.1f} seconds, longer than seconds={self.seconds}")
        if len(frames) < least_frames(text):
            raise ValueError(f"{len(frames)} frames, and its transcript needs {least_frames(text)}")
        return frames
