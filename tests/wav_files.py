"""Tiny recordings in the layout of Speech Commands, written by the tests themselves."""

from __future__ import annotations

import math
import wave
from pathlib import Path

RATE = 16_000


def write_wav(path: Path, values: list[float], *, bits: int = 16, channels: int = 1, rate: int = RATE) -> None:
    """PCM of ``values`` -1..1, the channels of a moment side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size, most = bits // 8, (1 << (bits - 1)) - 1
    offset = 128 if bits == 8 else 0
    data = b"".join((round(v * most) + offset).to_bytes(size, "little", signed=bits > 8) for v in values)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(size)
        file.setframerate(rate)
        file.writeframes(data)


def tone(hertz: float, seconds: float, *, rate: int = RATE) -> list[float]:
    return [0.5 * math.sin(2 * math.pi * hertz * at / rate) for at in range(round(seconds * rate))]


def write_recordings(folder: Path, *, lists: bool = True, speakers: int = 12, seconds: float = 0.05) -> Path:
    """Three words by each speaker, one of them twice, and what Speech Commands has beside them."""
    for word, hertz in (("yes", 400), ("no", 900), ("go", 1500)):
        for speaker in range(speakers):
            for take in range(1 + (word == "go")):
                values = tone(hertz + 20 * speaker + 7 * take, seconds * (1 + speaker % 2))
                write_wav(folder / word / f"{speaker:08x}_nohash_{take}.wav", values)
    write_wav(folder / "_background_noise_" / "hum.wav", tone(50, 0.2))
    (folder / "README.md").write_text("What this is.")
    if lists:
        for name, among in (("validation_list.txt", (0, 1)), ("testing_list.txt", (2, 3))):
            files = [f"{word}/{speaker:08x}_nohash_0.wav" for word in ("yes", "no", "go") for speaker in among]
            (folder / name).write_text("".join(f"{file}\n" for file in files))
    return folder


def write_transcribed(folder: Path, *, speakers: int = 12, seconds: float = 0.2) -> Path:
    """Clips of two words by each speaker, in the layout of Common Voice; the table's path."""
    lines = ["client_id\tpath\tsentence\tup_votes"]
    for speaker in range(speakers):
        for take, text in enumerate(("Go on", "no  end", "one")):
            name = f"{speaker}_{take}.wav"
            write_wav(folder / "clips" / name, tone(300 + 50 * speaker + 200 * take, seconds * (1 + take)))
            lines.append(f"voice{speaker}\t{name}\t{text}\t0")
    (folder / "table.tsv").write_text("\n".join(lines) + "\n")
    return folder / "table.tsv"
