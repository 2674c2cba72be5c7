"""Folders of WAV files: what is read, how it is split, what a frame is, and what is said of bad files."""

from __future__ import annotations

import cmath
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from wav_files import RATE, tone, write_recordings, write_wav

from spaces.tasks import SPLITS
from spaces.tasks.recordings import Recordings, log_mel, mel_bands
from spaces.tasks.sources.audio import read_wav


def test_a_frame_is_the_log_energy_in_triangles_over_mel() -> None:
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


def test_a_tone_is_loudest_in_the_band_that_holds_it() -> None:
    weights = mel_bands(RATE, 512, 40)
    for hertz in (300, 1000, 4000):
        frames = log_mel(torch.tensor(tone(50, 0.1) + tone(hertz, 0.1)), RATE, 40)
        assert frames[-2].argmax() in (weights[:, round(hertz * 512 / RATE)]).topk(2).indices
    assert frames.shape == (1 + (3200 - 400) // 160, 40)


def test_the_lists_decide_the_splits_and_background_noise_is_no_class(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)))
    assert task.names == ("go", "no", "yes")
    for split, speakers in (("validation", {0, 1}), ("test", {2, 3}), ("train", set(range(4, 12)))):
        assert {int(file.split("/")[1][:8], 16) for file in task.files[split]} >= speakers
        assert len(task.examples(split).inputs) == len(task.files[split])
    listed = set((tmp_path / "validation_list.txt").read_text().split())
    assert set(task.files["validation"]) == listed
    assert sum(map(len, task.files.values())) == 48


def test_without_lists_no_speaker_stands_in_two_splits(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path, lists=False)))
    speakers = [{file.split("/")[1][:8] for file in task.files[split]} for split in SPLITS]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 12
    assert sum(map(len, task.files.values())) == 48


def test_a_short_clip_is_padded_and_a_long_one_cut_to_its_middle(tmp_path: Path) -> None:
    write_recordings(tmp_path, seconds=0.1)
    task = Recordings(folder=str(tmp_path), seconds=0.15)
    inputs, padding, *_ = task.examples("validation")
    assert task.spec.length == inputs.shape[1] == 13
    assert padding is not None
    samples, rate = read_wav(tmp_path / task.files["validation"][1])  # of the second speaker, 0.2 s
    start = (len(samples) - (400 + 12 * 160)) // 2
    torch.testing.assert_close(inputs[1], log_mel(samples[start : start + 400 + 12 * 160], rate, 40))
    assert padding.sum(1).tolist() == [5, 0] * 3


def test_classes_and_clips_are_limited_evenly(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)), classes=2, train=9)
    assert len(task.names) == 2
    assert "go" in task.names, "it has the most files"
    labels = task.examples("train").labels
    assert torch.bincount(labels).tolist() == [4, 4]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "not a WAV file": (lambda path: path.write_bytes(b"once upon a time"), "not a WAV file"),
    "empty": (lambda path: path.write_bytes(b""), "it ends too early"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "truncated: "),
    "cut within its header": (lambda path: path.write_bytes(path.read_bytes()[:30]), ""),
    "silent": (lambda path: write_wav(path, [0.0] * 1600), "silent"),
    "too short": (lambda path: write_wav(path, tone(400, 0.02)), "320 samples, shorter than a window of 400"),
    "of another rate": (lambda path: write_wav(path, tone(400, 0.1), rate=8000), "8000 samples a second"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_bad_file_among_many_is_named_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], message: str
) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)))
    bad = task.files["train"][3]
    damage(tmp_path / bad)
    with caplog.at_level(logging.WARNING):
        inputs = task.examples("train").inputs
    assert len(inputs) == len(task.files["train"]) - 1
    assert task.skipped == 1
    assert f"1 of {len(task.files['train'])} train files are unusable, such as {bad}: {message}" in caplog.text


def test_many_bad_files_are_refused(tmp_path: Path) -> None:
    task = Recordings(folder=str(write_recordings(tmp_path)))
    (tmp_path / task.files["validation"][0]).write_bytes(b"")
    with pytest.raises(
        ValueError, match=f"1 of 6 validation files are unusable, such as {task.files['validation'][0]}"
    ):
        task.examples("validation")


def test_files_of_the_lists_that_are_not_there_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_recordings(tmp_path)
    (tmp_path / "yes" / "00000000_nohash_0.wav").unlink()
    with caplog.at_level(logging.WARNING):
        Recordings(folder=str(tmp_path))
    assert "1 files of the lists are not there, such as yes/00000000_nohash_0.wav" in caplog.text


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
        (no_list, r"no testing_list\.txt; it has either both lists or none"),
        (one_class, "two class folders of WAV files or more; there are go"),
        (in_both, "stands in both lists"),
        (lambda folder: (folder / "validation_list.txt").write_text(""), "no validation files"),
        (
            lambda folder: (folder / "testing_list.txt").write_text("no/0000000b_nohash_0.wav\n"),
            "all test files are of no; each split needs two classes or more",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_at_once(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(write_recordings(tmp_path))
    with pytest.raises(ValueError, match=message):
        Recordings(folder=str(tmp_path))
