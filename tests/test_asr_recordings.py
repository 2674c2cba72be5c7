"""Recordings and a table of what is said in them: what is read, how it is split, and what is said of bad lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from wav_files import RATE, tone, write_transcribed, write_wav

from spaces.tasks import IGNORE_INDEX, SPLITS
from spaces.tasks.asr_recordings import AsrRecordings
from spaces.tasks.recordings import log_mel
from spaces.tasks.sources.audio import read_wav

SENTENCES = ("go on", "no end", "one")


def test_a_clip_is_its_frames_and_what_the_table_says(tmp_path: Path) -> None:
    task = AsrRecordings(table=str(write_transcribed(tmp_path)), seconds=0.8)
    assert task.alphabet == " degno"
    for split in SPLITS:
        inputs, padding, labels, *_ = task.examples(split)
        for row, unheard, label, file in zip(inputs, padding, labels, task.files[split], strict=True):
            text = "".join(task.alphabet[at - 1] for at in label.tolist() if at != IGNORE_INDEX)
            assert text == SENTENCES[int(file[-5])]
            torch.testing.assert_close(row[~unheard], log_mel(read_wav(tmp_path / "clips" / file)[0], RATE, 40))


def test_no_speaker_stands_in_two_splits_and_every_file_in_one(tmp_path: Path) -> None:
    task = AsrRecordings(table=str(write_transcribed(tmp_path)))
    speakers = [{file.split("_")[0] for file in task.files[split]} for split in SPLITS]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 12
    assert sum(map(len, task.files.values())) == 36
    assert len(AsrRecordings(table=str(tmp_path / "table.tsv"), train=5).files["train"]) == 5


def test_commas_and_files_beside_the_table_and_no_speakers(tmp_path: Path) -> None:
    for number in range(10):
        write_wav(tmp_path / f"{number}.wav", tone(300 + number, 0.2))
    lines = [f'{number}.wav,"Yes, no"' for number in range(10)]
    (tmp_path / "table.csv").write_text("\n".join(["path,transcript", *lines]))
    task = AsrRecordings(table=str(tmp_path / "table.csv"))
    assert task.alphabet == " ,enosy"
    assert [len(task.examples(split).inputs) for split in SPLITS] == [8, 1, 1]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (lambda path: path.unlink(), "No such file"),
    "silent": (lambda path: write_wav(path, [0.0] * 3200), "silent"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "truncated: "),
    "of another rate": (lambda path: write_wav(path, tone(400, 0.2), rate=8000), "8000 samples a second"),
    "too long": (lambda path: write_wav(path, tone(400, 1.0)), r"1.0 seconds, longer than seconds=0.8"),
    "too short for its text": (lambda path: write_wav(path, tone(400, 0.04)), "2 frames, and its transcript needs "),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_bad_file_among_many_is_named_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], message: str
) -> None:
    task = AsrRecordings(table=str(write_transcribed(tmp_path)), seconds=0.8)
    bad = task.files["train"][3]
    damage(tmp_path / "clips" / bad)
    with caplog.at_level(logging.WARNING):
        inputs = task.examples("train").inputs
    assert len(inputs) == len(task.files["train"]) - 1
    assert task.skipped == 1
    assert f"1 of {len(task.files['train'])} train files are unusable, such as {bad}: " in caplog.text
    assert message in caplog.text


def test_letters_that_training_lacks_are_named(tmp_path: Path) -> None:
    table = write_transcribed(tmp_path)
    judged = AsrRecordings(table=str(table)).files["validation"][0]
    before = next(line for line in table.read_text().splitlines() if judged in line)
    table.write_text(table.read_text().replace(before, "\t".join([*before.split("\t")[:2], "zoé", "0"])))
    with pytest.raises(ValueError, match=f"1 of 3 validation files are unusable, such as {judged}: .* has 'zé'"):
        AsrRecordings(table=str(table)).examples("validation")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its columns must include path and sentence or transcript; there are none"),
        ("file\ttext\na.wav\tgo\n", "must include path and sentence or transcript; there are file, text"),
        ("path\tsentence\na.wav\t \n", "line 2 names no file, or nothing is said in it"),
        ("path\tsentence\na.wav\n", "line 2 names no file, or nothing is said in it"),
        ("path\tsentence\na.wav\tgo\na.wav\tno\n", "line 3 names a.wav again"),
        ("path\tsentence\na.wav\tgo\nb.wav\tno\n", "no train files; it takes three speakers or more, or three files"),
        ("path\tsentence\tspeaker\na.wav\tgo\tme\nb.wav\tno\tme\n", "no train files; it takes three speakers"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_at_once(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "table.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        AsrRecordings(table=str(tmp_path / "table.tsv"))
