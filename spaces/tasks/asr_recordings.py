"""Speech recognition on the user's own recordings: audio files, and a table with their transcripts.

The table has a header and one line per file: ``path``, relative to the table or to a folder ``clips`` beside it;
``sentence`` or ``transcript``, which is converted to lower case; and optionally ``client_id`` or ``speaker``. Columns
are separated by tabs, or in a ``.csv`` file by commas. This is the format of Common Voice (Ardila et al., "Common
Voice: A Massively-Multilingual Speech Corpus", 2020). Speakers are split 8:1:1, or files if there are no speakers.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from spaces.tasks import SPLITS, Batch, Split, TaskSpec, check_whole, split_sizes
from spaces.tasks.sources.audio import log_resampled, read_speech
from spaces.tasks.sources.bad_rows import read_usable
from spaces.tasks.sources.log_mel import WINDOW_S, Clip, frames_in, log_mel, pad_stack
from spaces.tasks.sources.splits import digest, split_by_hash
from spaces.tasks.sources.transcription import Transcription, min_frames

TEXT, SPEAKER = ("sentence", "transcript"), ("client_id", "speaker")  # accepted column names


class Line(NamedTuple):
    """A line of the table."""

    text: str
    speaker: str


class AsrRecordings(Transcription):
    """Word error rate; see :class:`Transcription`. The alphabet is that of the training transcripts.

    Args:
        table: the file that lists the recordings.
        seconds: maximal duration; longer recordings are unusable, because the position of their words is not known.
        rate: sample rate in hertz; files of other rates are resampled.
        bands: mel bands of the spectrogram.
        train: training recordings at most.
        validation: validation recordings at most.
        test: test recordings at most.
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
        check_whole(1, bands=bands)
        check_whole(1000, rate=rate)
        limits = split_sizes(train=train, validation=validation, test=test)
        if not WINDOW_S <= seconds < float("inf"):
            raise ValueError(f"seconds={seconds}: it must be at least {WINDOW_S}")
        if table is None:
            raise ValueError("table=None: name a file that lists audio files and their transcripts")
        self.table, self.seconds, self.rate, self.bands = Path(table).expanduser(), seconds, rate, bands
        if not self.table.is_file():
            raise ValueError(f"table={table!r}: no such file")
        self.lines = self._read_table()
        splits = split_by_hash(self.lines, key=lambda file: self.lines[file].speaker)
        self.files = {split: sorted(splits[split], key=digest)[: limits[split]] for split in SPLITS}
        for split in SPLITS:
            if not self.files[split]:
                raise ValueError(f"table={table!r}: no {split} files; it takes three speakers or more, or three files")
        letters = set("".join(self.lines[file].text for file in self.files["train"])) - {" "}
        self.alphabet = " " + "".join(sorted(letters))
        self.spec = TaskSpec(length=frames_in(seconds), features=bands, classes=1 + len(self.alphabet), per_token=True)

    def _read_table(self) -> dict[str, Line]:
        """The lines of the table by path."""
        where = f"table={str(self.table)!r}"
        with self.table.open(newline="", encoding="utf-8") as file:
            commas = self.table.suffix.lower() == ".csv"
            rows = csv.DictReader(
                file, delimiter="," if commas else "\t", quoting=csv.QUOTE_MINIMAL if commas else csv.QUOTE_NONE
            )
            columns = rows.fieldnames or ()
            text, speaker = (next((name for name in known if name in columns), None) for known in (TEXT, SPEAKER))
            if "path" not in columns or text is None:
                found = ", ".join(columns) or "none"
                raise ValueError(f"{where}: its columns must include path and {' or '.join(TEXT)}; there are {found}")
            lines = dict[str, Line]()
            for number, row in enumerate(rows, start=2):
                path, words = row["path"], " ".join((row[text] or "").lower().split())
                if not path or not words:
                    raise ValueError(f"{where}: line {number} has no path or no {text}")
                if path in lines:
                    raise ValueError(f"{where}: line {number} repeats the path {path}")
                lines[path] = Line(words, (speaker and row[speaker]) or path)
        return lines

    def examples(self, split: Split) -> Batch:
        """Frames ``(recordings, length, bands)`` and transcripts; unusable files are skipped with a warning."""
        kept, clips = read_usable(self.table.parent, split, self.files[split], self._read, (OSError, ValueError))
        log_resampled([clip.file_rate for clip in clips], self.rate, f"{split} files")
        inputs, padding = pad_stack([clip.frames for clip in clips], self.spec.length)
        return Batch(inputs, padding, self.encode([self.lines[file].text for file in kept], self.spec.length))

    def _read(self, file: str) -> Clip:
        text = self.lines[file].text
        unknown = "".join(sorted(set(text) - set(self.alphabet)))
        if unknown:
            raise ValueError(f"the characters {unknown!r} are in no training transcript")
        path = self.table.parent / file
        samples, file_rate = read_speech(path if path.exists() else self.table.parent / "clips" / file, self.rate)
        frames = log_mel(samples, self.rate, self.bands)
        if len(frames) > self.spec.length:
            raise ValueError(f"{len(samples) / self.rate:.1f} seconds, longer than seconds={self.seconds}")
        if len(frames) < min_frames(text):
            raise ValueError(f"{len(frames)} frames, but its transcript needs at least {min_frames(text)}")
        return Clip(frames, file_rate)
