"""Folders of recordings: frames, splits, file formats, and handling of unusable files and folders."""

from __future__ import annotations

import cmath
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_files import RATE, tone, write_audio, write_recordings

from spaces.tasks import SPLITS
from spaces.tasks.recordings import Recordings
from spaces.tasks.sources.audio import read_audio
from spaces.tasks.sources.log_mel import log_mel, mel_bands


def test_a_frame_is_the_log_energy_in_triangular_mel_bands() -> None:
    """A slow Fourier sum and triangles drawn from the definition of mel."""
    rate, bands, window, hop, bins = 1000, 6, 25, 10, 32
    samples = torch.rand(67, generator=torch.Generator().manual_seed(0)) - 0.5
    mels = [2595 * math.log10(1 + rate / 2 / 700) * at / (bands + 1) for at in range(bands + 2)]
    peaks = [700 * (10 ** (mel / 2595) - 1) for mel in mels]
    slow = []
    for start in range(0, len(samples) - window + 1, hop):
        cut = [samples[start + t].item() * math.sin(math.pi * t / window) ** 2 for t in range(window)]
        frame = []
        for below, peak, above in zip(peaks, peaks[1:], peaks[2:], strict=False):
            energy = 0.0
            for k in range(bins // 2 + 1):
                hertz = k * rate / bins
                weight = (hertz - below) / (peak - below) if hertz < peak else (above - hertz) / (above - peak)
                amplitude = abs(sum(x * cmath.exp(-2j * math.pi * k * t / bins) for t, x in enumerate(cut)))
                energy += max(0.0, weight) * amplitude**2
            frame.append(math.log(energy + 1e-6))
        slow.append(frame)
    expected = torch.tensor(slow)
    torch.testing.assert_close(log_mel(samples, rate, bands), expected - expected.mean(0), atol=1e-4, rtol=1e-4)


def test_a_tone_has_its_energy_in_the_band_of_its_frequency() -> None:
    weights = mel_bands(RATE, 512, 40)
    for hertz in (300, 1000, 4000):
        frames = log_mel(torch.from_numpy(np.concatenate([tone(50, 0.1), tone(hertz, 0.1)])).float(), RATE, 40)
        assert frames[-2].argmax() in (weights[:, round(hertz * 512 / RATE)]).topk(2).indices
    assert frames.shape == (1 + (3200 - 400) // 160, 40)


def test_the_lists_determine_the_splits_and_background_noise_is_no_class(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)))
    assert task.class_names == ("go", "no", "yes")
    for split, speakers in (("validation", {0, 1}), ("test", {2, 3}), ("train", set(range(4, 12)))):
        assert {int(file.split("/")[1][:8], 16) for file in task.files[split]} >= speakers
        assert len(task.examples(split).inputs) == len(task.files[split])
    listed = set((tmp_path / "validation_list.txt").read_text().split())
    assert set(task.files["validation"]) == listed
    assert sum(map(len, task.files.values())) == 48


def test_without_lists_no_speaker_is_in_two_splits(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path, lists=False)))
    speakers = [{file.split("/")[1][:8] for file in task.files[split]} for split in SPLITS]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 12
    assert sum(map(len, task.files.values())) == 48


def test_short_clips_are_padded_and_long_ones_cropped_to_their_middle(tmp_path: Path) -> None:
    write_recordings(tmp_path, seconds=0.1)
    task = Recordings(folder=str(tmp_path), seconds=0.15)
    inputs, padding, *_ = task.examples("validation")
    assert task.spec.length == inputs.shape[1] == 13
    assert padding is not None
    samples, rate = read_audio(tmp_path / task.files["validation"][1])  # of the second speaker, 0.2 s
    start = (len(samples) - (400 + 12 * 160)) // 2
    torch.testing.assert_close(inputs[1], log_mel(samples[start : start + 400 + 12 * 160], rate, 40))
    assert padding.sum(1).tolist() == [5, 0] * 3


def test_large_splits_are_stored_and_give_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_recordings(tmp_path / "wav", seconds=0.1)
    (folder / "go" / "00000005_nohash_0.wav").write_bytes(b"")
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    settings = {"folder": str(folder), "seconds": 0.15, "rate": 8000}
    in_memory = Recordings(**settings)
    batches = {split: list(in_memory.batches(split, 5, shuffle=3)) for split in SPLITS}
    warnings = caplog.messages
    caplog.clear()
    monkeypatch.setattr("spaces.tasks.recordings.LARGE", 1)
    monkeypatch.setattr("spaces.tasks.recordings.CHUNK", 7)
    for stored in (Recordings(**settings), Recordings(**settings)):  # stored, and found
        for split in SPLITS:
            for found, expected in zip(stored.batches(split, 5, shuffle=3), batches[split], strict=True):
                for name in ("inputs", "padding", "labels"):
                    one, other = getattr(found, name), getattr(expected, name)
                    assert (one is other is None) or torch.equal(one, other)
    assert warnings
    assert caplog.messages == warnings, "when they are stored"


def test_limits_keep_the_largest_classes_and_equally_many_clips_of_each(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)), classes=2, train=9)
    assert len(task.class_names) == 2
    assert "go" in task.class_names, "it has the most files"
    labels = task.examples("train").labels
    assert torch.bincount(labels).tolist() == [4, 4]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no audio file": (lambda path: path.write_bytes(b"once upon a time"), "Error opening the file: Format not"),
    "empty": (lambda path: path.write_bytes(b""), "Error opening the file: Format not recognised"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "truncated: "),
    "cut within its header": (lambda path: path.write_bytes(path.read_bytes()[:30]), ""),
    "silent": (lambda path: write_audio(path, [0.0] * 1600), "silent"),
    "too short": (lambda path: write_audio(path, tone(400, 0.02)), "320 samples, shorter than a window of 400"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_an_unusable_file_among_many_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], message: str
) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)))
    bad = task.files["train"][3]
    damage(tmp_path / bad)
    with caplog.at_level(logging.WARNING):
        inputs = task.examples("train").inputs
    assert len(inputs) == len(task.files["train"]) - 1
    assert f"1 of {len(task.files['train'])} train files are unusable, such as {bad}: {message}" in caplog.text


def test_many_unusable_files_are_refused(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)))
    (tmp_path / task.files["validation"][0]).write_bytes(b"")
    with pytest.raises(
        ValueError, match=f"1 of 6 validation files are unusable, such as {task.files['validation'][0]}"
    ):
        task.examples("validation")


def test_listed_files_that_do_not_exist_cause_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_recordings(tmp_path)
    (tmp_path / "yes" / "00000000_nohash_0.wav").unlink()
    with caplog.at_level(logging.WARNING):
        Recordings(folder=str(tmp_path))
    assert "1 files of the lists do not exist, such as yes/00000000_nohash_0.wav" in caplog.text


def no_list(folder: Path) -> None:
    (folder / "testing_list.txt").unlink()


def one_class(folder: Path) -> None:
    for word in ("yes", "no"):
        (folder / word).rename(folder / f"_{word}")


def in_both(folder: Path) -> None:
    (folder / "testing_list.txt").write_text((folder / "validation_list.txt").read_text())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_list, r"no testing_list\.txt; give both lists or none"),
        (one_class, r"two class folders or more with files ending in \.wav, .*; there are go"),
        (in_both, "is in both lists"),
        (lambda folder: (folder / "validation_list.txt").write_text(""), "no validation files"),
        (
            lambda folder: (folder / "testing_list.txt").write_text("no/0000000b_nohash_0.wav\n"),
            "all test files are of no; each split needs two classes or more",
        ),
    ],
)
def test_an_unusable_folder_is_refused_at_construction(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(write_recordings(tmp_path))
    with pytest.raises(ValueError, match=message):
        Recordings(folder=str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], None),
        (["_background_noise_/a.m4a", "yes/.hidden.m4a", "notes.txt"], None),
        (["yes/a.FLAC", "no/b.flac"], "2 .flac, 48 .wav files are read"),
        (
            ["yes/a.m4a", "no/b.M4A", "up/c"],
            "48 .wav files are read; not read, by their ending: 2 .m4a, 1 without an ending",
        ),
    ],
)
def test_several_formats_and_files_that_are_not_read_are_counted_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, files: list[str], message: str | None
) -> None:
    write_recordings(tmp_path)
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with caplog.at_level(logging.WARNING):
        Recordings(folder=str(tmp_path))
    assert caplog.messages == ([f"{tmp_path}: {message}"] if message else [])
