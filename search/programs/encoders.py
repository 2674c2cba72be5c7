"""Raw texts, images and recordings as the tokens of a network, in numpy: what the project's tasks do with torch.

Learned tokens need the package tokenizers, image files Pillow, recordings at another rate than the model's scipy, and
other recordings than WAV of 16 bits soundfile.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
NEIGHBOURS = "neighbours.npz"  # the training pairs among which a translator looks up the most similar ones
WINDOW_S, HOP_S, FLOOR, SILENCE = 0.025, 0.010, 1e-6, 1e-4  # of log-mel spectrograms


def _texts(settings: dict[str, Any], folder: Path) -> Callable[[Any], Array]:
    """Texts as bytes, as words, or as the tokens of ``tokenizer.json``, truncated; see :func:`_with_neighbours`."""
    if settings.get("neighbours"):
        alone = {**settings, "length": settings["source_length"], "neighbours": 0}
        return _with_neighbours(_texts(alone, folder), settings, folder)
    length, first = settings["length"], settings.get("first_id", 0)
    if settings["tokens"] == "bytes":
        return lambda text: np.frombuffer((text.encode() or b" ")[:length], np.uint8) + np.int64(first)
    if settings["tokens"] == "words":
        number_of = {word: number for number, word in enumerate(settings["words"].split("\n"))}
        return lambda text: np.array([number_of.get(word, 0) for word in text.split()[:length] or [""]]) + first
    from tokenizers import Tokenizer

    tokenizer, special = Tokenizer.from_file(str(folder / "tokenizer.json")), settings["special_tokens"]
    kept = {int(old): new for new, old in enumerate(settings.get("kept_ids", "").split())}
    with_them, without = (len(tokenizer.encode("a", add_special_tokens=add).ids) for add in (True, False))

    def encode(text: Any) -> Array:
        ids = tokenizer.encode(text, add_special_tokens=special).ids or [0]
        if special and with_them > without and len(ids) > length:  # the special token at the end is kept
            ids = [*ids[: length - 1], ids[-1]]
        ids = [kept.get(each, settings["unknown_id"]) for each in ids[:length]] if kept else ids[:length]
        return np.array(ids) + first

    return encode


def _with_neighbours(encode: Callable[[Any], Array], settings: dict[str, Any], folder: Path) -> Callable[[Any], Array]:
    """Sources that ``encode`` makes, followed by the targets of the most similar ones in ``neighbours.npz``."""
    if __package__:
        from spaces.baselines.nearest import NearestSequences, with_targets
    else:  # in an exported folder
        from nearest import NearestSequences, with_targets  # type: ignore[import-not-found,no-redef,unused-ignore]

    with np.load(folder / NEIGHBOURS, allow_pickle=False) as file:
        pairs = {side: np.split(file[side], file[f"{side}_ends"][:-1]) for side in ("sources", "targets")}
    nearest, length = NearestSequences(pairs["sources"]), settings["length"]

    def encode_both(text: Any) -> Array:
        source = encode(text)
        (found,) = nearest.find([source], settings["neighbours"])
        joined = with_targets(source, [pairs["targets"][at] for at in found], settings["separators"])
        return np.array(joined[:length])

    return encode_both


def token_bytes(settings: dict[str, Any], folder: Path) -> list[bytes]:
    """The bytes of each token by id: a single one, those of an encoding over bytes, or of one with byte fallback."""
    if settings["tokens"] == "bytes":
        return [bytes([number]) for number in range(256)]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = tokenizer.get_vocab()
    names = sorted(tokens, key=tokens.__getitem__)
    if json.loads(tokenizer.to_str())["model"].get("byte_fallback"):
        pattern, space = re.compile("<0x([0-9A-F]{2})>"), "\N{LOWER ONE EIGHTH BLOCK}"
        found = [pattern.fullmatch(name) for name in names]
        pairs = zip(names, found, strict=True)
        return [bytes([int(byte[1], 16)]) if byte else name.replace(space, " ").encode() for name, byte in pairs]
    # Bytes that are no printable character of Latin-1 are written as the characters from 256 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}
    return [bytes(byte_of[character] for character in name) for name in names]


def _images(settings: dict[str, Any], _: Path) -> Callable[[Any], Array]:
    """Image files, by path or as bytes, or pixels ``(height, width[, channels])`` uint8 of the right size."""
    height, width, channels, patch = (settings[name] for name in ("height", "width", "channels", "patch"))

    def encode(image: Any) -> Array:
        pixels = image if isinstance(image, np.ndarray) else _read_image(image, channels, height, width)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if pixels.shape != (height, width, channels):
            raise ValueError(f"pixels {pixels.shape}; the model takes {(height, width, channels)}")
        if patch is None:
            return pixels.reshape(-1)
        pixels = np.pad(pixels, ((0, -height % patch), (0, -width % patch), (0, 0)), mode="edge")
        rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
        squares = pixels.reshape(rows, patch, columns, patch, channels).transpose(0, 2, 4, 1, 3)
        scaled = squares.reshape(rows * columns, -1).astype(np.float32) / np.float32((settings["levels"] - 1) / 2)
        return scaled - np.float32(1)

    return encode


def _read_image(source: Any, channels: int, height: int, width: int) -> Array:
    from PIL import Image, ImageOps

    with Image.open(_opened(source)) as file:
        file.draft(None, (2 * width, 2 * height))  # decodes a large JPEG at a reduced size
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per pixel; 8 and 16 can be read")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (width, height)))


def _recordings(settings: dict[str, Any], _: Path) -> Callable[[Any], Array]:
    """Log-mel frames of audio files, by path or as bytes, or of samples ``(samples,)`` in -1..1 with their rate."""
    rate, length, bands = settings["rate"], settings["length"], settings["features"]
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    bins, longest = 1 << (window - 1).bit_length(), window + (length - 1) * hop
    filters, shape = _mel_bands(rate, bins, bands), 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)

    def encode(recording: Any) -> Array:
        samples, own_rate = recording if isinstance(recording, tuple) else _read_audio(recording)
        if np.abs(samples).max(initial=0) < SILENCE:
            raise ValueError("a silent recording")
        samples = _resample(samples, own_rate, rate)
        if settings.get("alphabet") and len(samples) >= longest + hop:
            raise ValueError(f"{len(samples) / rate:.1f} seconds; the model transcribes {longest / rate:.1f} at most")
        samples = samples[max(0, len(samples) - longest) // 2 :][:longest]
        if len(samples) < window:
            raise ValueError(f"{len(samples)} samples, shorter than a window of {window}")
        starts = np.arange(0, len(samples) - window + 1, hop)
        spectrum = np.fft.rfft(samples[starts[:, None] + np.arange(window)] * shape, bins)
        frames = np.log(np.square(np.abs(spectrum)) @ filters.T + FLOOR)
        found: Array = frames - frames.mean(0)
        return found

    return encode


def _mel_bands(rate: int, bins: int, bands: int) -> Array:
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    peaks = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    hertz = np.arange(bins // 2 + 1) * rate / bins
    below, peak, above = (peaks[at : at + bands, None] for at in range(3))
    found: Array = np.minimum((hertz - below) / (peak - below), (above - hertz) / (above - peak)).clip(min=0)
    return found


def _opened(source: Any) -> Any:
    """A path as text, or the bytes of a file as a file."""
    return io.BytesIO(source) if isinstance(source, bytes) else str(source)


def _read_audio(source: Any) -> tuple[Array, int]:
    try:
        with wave.open(_opened(source)) as file:
            if file.getsampwidth() == 2:
                content = np.frombuffer(file.readframes(file.getnframes()), "<i2")
                return content.reshape(-1, file.getnchannels()).mean(1) / 32768, file.getframerate()
    except wave.Error:
        pass
    import soundfile  # other formats than WAV of 16 bits

    samples, rate = soundfile.read(_opened(source), always_2d=True)
    return samples.mean(1), rate


def _resample(samples: Array, rate: int, target_rate: int) -> Array:
    if rate == target_rate:
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(rate, target_rate)
    found: Array = resample_poly(samples, target_rate // common, rate // common)
    return found


def _tokens(settings: dict[str, Any], _: Path) -> Callable[[Any], Array]:
    """Arrays of ids ``(length,)`` or frames ``(length, features)``, as they are."""
    return np.asarray


ENCODERS = {"text": _texts, "image": _images, "audio": _recordings, "tokens": _tokens}


def read_examples(file: Path, kind: str, column: str = "text") -> Iterator[tuple[str, Any]]:
    """The examples of a file, each with a name: texts of a table's column or one a line, an image, arrays of a .npy.

    A folder has an example per file.
    """
    if file.suffix == ".npy":
        yield from ((str(number), row) for number, row in enumerate(np.load(file, allow_pickle=False)))
    elif kind == "tokens":
        raise ValueError(f"{file}: this model takes a .npy file of an array of examples")
    elif kind != "text":
        yield from ((str(path), path) for path in (sorted(file.iterdir()) if file.is_dir() else [file]))
    elif file.suffix in (".csv", ".tsv"):
        with file.open(newline="", encoding="utf-8-sig") as source:
            rows = csv.DictReader(source, delimiter="\t" if file.suffix == ".tsv" else ",")
            if column not in (rows.fieldnames or ()):
                raise ValueError(f"{file}: no column {column!r}; it has {', '.join(rows.fieldnames or ())}")
            yield from ((row[column], row[column]) for row in rows)
    else:
        with file.open(encoding="utf-8") as source:
            yield from ((line.rstrip("\n"), line.rstrip("\n")) for line in source if line.strip())
