"""Writes small recordings in the layouts of Speech Commands and Common Voice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def write_audio(path: Path, values: Sequence[float] | np.ndarray, *, rate: int = RATE) -> None:
    """Samples in -1..1, in the format of the file name; WAV and FLAC with 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.rint(np.asarray(values) * 32767).astype(np.int16), rate)


def tone(hertz: float, seconds: float, *, rate: int = RATE) -> np.ndarray:
    """A sine of amplitude 0.5."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_recordings(folder: Path, *, lists: bool = True, speakers: int = 12, seconds: float = 0.05) -> Path:
    """The layout of Speech Commands: three words by each speaker, one of them twice."""
    for word, hertz in (("yes", 400), ("no", 900), ("go", 1500)):
        for speaker in range(speakers):
            for take in range(1 + (word == "go")):
                values = tone(hertz + 20 * speaker + 7 * take, seconds * (1 + speaker % 2))
                write_audio(folder / word / f"{speaker:08x}_nohash_{take}.wav", values)
    write_audio(folder / "_background_noise_" / "hum.wav", tone(50, 0.2))
    (folder / "README.md").write_text("What this is.")
    if lists:
        for name, among in (("validation_list.txt", (0, 1)), ("testing_list.txt", (2, 3))):
            files = [f"{word}/{speaker:08x}_nohash_0.wav" for word in ("yes", "no", "go") for speaker in among]
            (folder / name).write_text("".join(f"{file}\n" for file in files))
    return folder


def write_transcribed(folder: Path, *, speakers: int = 12, seconds: float = 0.2) -> Path:
    """The layout of Common Voice, with three clips by each speaker; returns the path of the table."""
    lines = ["client_id\tpath\tsentence\tup_votes"]
    for speaker in range(speakers):
        for take, text in enumerate(("Go on", "no  end", "one")):
            name = f"{speaker}_{take}.wav"
            write_audio(folder / "clips" / name, tone(300 + 50 * speaker + 200 * take, seconds * (1 + take)))
            lines.append(f"voice{speaker}\t{name}\t{text}\t0")
    (folder / "table.tsv").write_text("\n".join(lines) + "\n")
    return folder / "table.tsv"
