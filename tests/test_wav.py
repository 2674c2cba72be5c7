"""WAV files of every kind that is read, and what is written."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import pytest
import torch
from wav_files import write_wav as write_slowly

from spaces.tasks.sources.audio import read_wav, write_wav

VALUES = [-1.0, -0.5, -0.001, 0.0, 0.001, 0.25, 0.999, 1.0]


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_read_as_they_were_written(tmp_path: Path, bits: int, channels: int) -> None:
    values = VALUES
    write_slowly(tmp_path / "a.wav", values, bits=bits, channels=channels, rate=8000)
    samples, rate = read_wav(tmp_path / "a.wav")
    expected = [sum(values[at : at + channels]) / channels for at in range(0, len(values), channels)]
    assert rate == 8000
    assert samples.tolist() == pytest.approx(expected, abs=max(2 / (1 << (bits - 1)), 1e-6))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    content = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WAVE" + content


def header(kind: int, bits: int, channels: int = 1, behind: bytes = b"") -> tuple[bytes, bytes]:
    size = bits // 8 * channels
    return b"fmt ", struct.pack("<HHIIHH", kind, channels, 8000, 8000 * size, size, bits) + behind


def longer(kind: int, bits: int) -> tuple[bytes, bytes]:
    """With what stands behind the usual header in newer files: the valid bits, the speakers, and the format's name."""
    name = struct.pack("<H", kind) + bytes.fromhex("000000001000800000aa00389b71")
    return header(0xFFFE, bits, behind=struct.pack("<HHI", 22, bits, 4) + name)


SIXTEEN = struct.pack("<8h", *(round(value * 32767) for value in VALUES))
FLOATS, DOUBLES = struct.pack("<8f", *VALUES), struct.pack("<8d", *VALUES)
FILES = {
    "floats": riff(header(3, 32), (b"fact", b"\x08\0\0\0"), (b"data", FLOATS)),
    "doubles": riff(header(3, 64), (b"data", DOUBLES)),
    "the longer header": riff(longer(1, 16), (b"data", SIXTEEN)),
    "the longer header, floats": riff(longer(3, 32), (b"data", FLOATS)),
    "other things before and after": riff((b"LIST", b"odd"), header(1, 16), (b"data", SIXTEEN), (b"id3 ", b"name")),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_newer_files_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    samples, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8000
    assert samples.tolist() == pytest.approx(VALUES, abs=1e-4)


UNREADABLE = {
    "empty": (b"", "it ends too early"),
    "of another kind": (b"OggS" + b"\0" * 40, "not a WAV file"),
    "without samples": (riff(header(1, 16)), "it ends too early"),
    "without a header": (riff((b"data", SIXTEEN)), "it ends too early"),
    "with no sample": (riff(header(1, 16), (b"data", b"")), "truncated: 0 of 0"),
    "cut": (riff(header(1, 16), (b"data", SIXTEEN))[:-5], "truncated: 5 of 8 samples"),
    "compressed": (riff(header(0x55, 16), (b"data", SIXTEEN)), "format 85 with 16 bits; whole numbers of"),
    "of odd bits": (riff(header(1, 12), (b"data", SIXTEEN)), "format 1 with 12 bits"),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_wav(tmp_path / "a.wav")


def test_what_is_written_is_read_again_by_us_and_by_python(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", torch.tensor([*VALUES, 1.5, -7.0]), 8000)
    samples, rate = read_wav(tmp_path / "a.wav")
    assert (rate, samples.tolist()) == (8000, pytest.approx([*VALUES, 1.0, -1.0], abs=1e-4))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnframes(), file.getsampwidth(), file.getnchannels()) == (10, 2, 1)
