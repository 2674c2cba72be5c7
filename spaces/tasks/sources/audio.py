"""WAV files: samples as whole numbers or as floating-point ones, also with the longer header of newer files.

Microsoft, "Multiple Channel Audio Data and WAVE Files", 2007, for that header, which Python's ``wave`` cannot read
before 3.12.
"""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # formats; the last one says which further behind
READABLE = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}


def read_wav(path: Path) -> tuple[Tensor, int]:
    """Samples of -1..1, the mean of the channels, and how many there are a second; 8 to 32 bits, or 32 or 64 of float.

    Raises:
        ValueError: it is no such file, or holds less than its header says.
    """
    chunks, promised = _chunks(path.read_bytes())
    header = chunks.get(b"fmt ", b"")
    if len(header) < 16 or b"data" not in chunks:
        raise ValueError("it ends too early")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", header[:16])
    if kind == EXTENSIBLE and len(header) >= 26:
        (kind,) = struct.unpack("<H", header[24:26])
    if (kind, bits) not in READABLE or not channels or not rate:
        raise ValueError(f"format {kind} with {bits} bits; whole numbers of 8, 16, 24 or 32 and floats can be read")
    size = bits // 8 * channels
    found, promised = len(chunks[b"data"]) // size, promised // size
    if found < promised or not found:
        raise ValueError(f"truncated: {found} of {promised} samples")
    data = chunks[b"data"][: found * size]
    if bits == 24:  # as the upper three of four bytes
        padded = np.zeros((found * channels, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = padded.view("<i4")[:, 0] / 2.0**31
    else:
        values = np.frombuffer(data, READABLE[kind, bits]).astype(np.float64)
        if kind == PCM:
            values = (values - 128 * (bits == 8)) / 2.0 ** (bits - 1)  # 8 bits are the one unsigned format
    return torch.from_numpy(values.reshape(found, channels).mean(1)).float(), rate


def _chunks(content: bytes) -> tuple[dict[bytes, bytes], int]:
    """The parts of a file by name, and how many bytes of samples there should be."""
    if content and not (content.startswith(b"RIFF") and content[8:12] == b"WAVE"):
        raise ValueError("not a WAV file; it does not begin as one")
    chunks, at, promised = dict[bytes, bytes](), 12, 0
    while at + 8 <= len(content) and b"data" not in chunks:
        name, size = struct.unpack("<4sI", content[at : at + 8])
        chunks[name], promised = content[at + 8 : at + 8 + size], size
        at += 8 + size + size % 2
    return chunks, promised


def write_wav(path: Path, samples: Tensor, rate: int) -> None:
    """Samples of -1..1, ``(samples,)``, as 16 bits each; louder ones are clipped."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples.clamp(-1, 1) * 32767).round().numpy().astype("<i2").tobytes())
