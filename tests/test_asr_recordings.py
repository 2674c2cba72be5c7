"""Recordings with a table of transcripts: examples, splits, and handling of unusable files and tables."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from audio_files import RATE, tone, write_audio, write_transcribed

from spaces.tasks import IGNORE_INDEX, SPLITS
from spaces.tasks.asr_recordings import AsrRecordings
from spaces.tasks.sources.audio import read_audio
from spaces.tasks.sources.log_mel import log_mel

SENTENCES = ("go on", "no end", "one")


def test_an_example_is_the_frames_of_a_clip_and_its_transcript(tmp_path: Path) -> None:
    task = AsrRecordings(table=str(write_transcribed(tmp_path)), seconds=0.8)
    assert task.alphabet == " degno"
    for split in SPLITS:
        inputs, padding, labels, *_ = task.examples(split)
        for row, padded, label, file in zip(inputs, padding, labels, task.files[split], strict=True):
            text = "".join(task.alphabet[at - 1] for at in label.tolist() if at != IGNORE_INDEX)
            assert text == SENTENCES[int(file[-5])]
            torch.testing.assert_close(row[~padded], log_mel(read_audio(tmp_path / "clips" / file)[0], RATE, 40))


def test_every_file_is_in_one_split_and_no_speaker_in_two(tmp_path: Path) -> None:
    task = AsrRecordings(table=str(write_transcribed(tmp_path)))
    speakers = [{file.split("_")[0] for file in task.files[split]} for split in SPLITS]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 12
    assert sum(map(len, task.files.values())) == 36
    assert len(AsrRecordings(table=str(tmp_path / "table.tsv"), train=5).files["train"]) == 5


def test_a_csv_table_without_speakers_and_with_files_beside_it(tmp_path: Path) -> None:
    for number in range(10):
        write_audio(tmp_path / f"{number}.wav", tone(300 + number, 0.2))
    lines = [f'{number}.wav,"Yes, no"' for number in range(10)]
    (tmp_path / "table.csv").write_text("\n".join(["path,transcript", *lines]))
    task = AsrRecordings(table=str(tmp_path / "table.csv"))
    assert task.alphabet == " ,enosy"
    assert [len(task.examples(split).inputs) for split in SPLITS] == [8, 1, 1]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (lambda path: path.unlink(), "No such file"),
    "silent": (lambda path: write_audio(path, [0.0] * 3200), "silent"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "truncated: "),
    "too long": (lambda path: write_audio(path, tone(400, 1.0)), r"1.0 seconds, longer than seconds=0.8"),
    "too short for its text": (lambda path: write_audio(path, tone(400, 0.04)), "2 frames, but its transcript needs "),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_an_unusable_file_among_many_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], message: str
) -> None:
    task = AsrRecordings(table=str(write_transcribed(tmp_path)), seconds=0.8)
    bad = task.files["train"][3]
    damage(tmp_path / "clips" / bad)
    with caplog.at_level(logging.WARNING):
        inputs = task.examples("train").inputs
    assert len(inputs) == len(task.files["train"]) - 1
    assert f"1 of {len(task.files['train'])} train files are unusable, such as {bad}: " in caplog.text
    assert message in caplog.text


def test_characters_that_are_not_in_train_are_refused(tmp_path: Path) -> None:
    table = write_transcribed(tmp_path)
    file = AsrRecordings(table=str(table)).files["validation"][0]
    before = next(line for line in table.read_text().splitlines() if file in line)
    table.write_text(table.read_text().replace(before, "\t".join([*before.split("\t")[:2], "zoé", "0"])))
    with pytest.raises(
        ValueError,
        match=f"1 of 3 validation files are unusable, such as {file}: the characters 'zé' are in no training",
    ):
        AsrRecordings(table=str(table)).examples("validation")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its columns must include path and sentence or transcript; there are none"),
        ("file\ttext\na.wav\tgo\n", "must include path and sentence or transcript; there are file, text"),
        ("path\tsentence\na.wav\t \n", "line 2 has no path or no sentence"),
        ("path\tsentence\na.wav\n", "line 2 has no path or no sentence"),
        ("path\tsentence\na.wav\tgo\na.wav\tno\n", "line 3 repeats the path a.wav"),
        (
            "path\tsentence\na.wav\tgo\nb.wav\tno\n",
            "no validation files; it takes three speakers or more, or three files",
        ),
        ("path\tsentence\tspeaker\na.wav\tgo\tme\nb.wav\tno\tme\n", "no validation files; it takes three speakers"),
    ],
)
def test_an_unusable_table_is_refused_at_construction(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "table.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        AsrRecordings(table=str(tmp_path / "table.tsv"))
