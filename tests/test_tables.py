"""Readers of tables: separators, encodings, compression and the shapes of JSON."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet
from text_tables import FORMATS, REVIEWS, write_table

from spaces.tasks import SPLITS
from spaces.tasks.sources.tables import Settings, read_table
from spaces.tasks.table import Table

TEXTS = [str(text) for text, _ in REVIEWS]


def texts(path: Path, **settings: Any) -> list[object]:
    rows = list(read_table(path, Settings("review", "stars", **settings)))
    assert not [row for row in rows if row.problem]
    assert [str(row.label) for row in rows] == [str(label) for _, label in REVIEWS][: len(rows)]
    return [row.text for row in rows]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("compress", [gzip, bz2, lzma])
def test_compressed_tables_are_read(tmp_path: Path, ending: str, compress: Any) -> None:
    content = write_table(tmp_path / f"a.{ending}").read_bytes()
    path = tmp_path / f"a.{ending.upper()}.{ {gzip: 'gz', bz2: 'bz2', lzma: 'xz'}[compress] }"
    path.write_bytes(compress.compress(content))
    assert texts(path) == TEXTS


def separated(path: Path, separator: str, *, encoding: str = "utf-8", rows: int = len(TEXTS)) -> Path:
    lines = [("id, or not", "review", "stars"), *((at, f'"{text}"', label) for at, (text, label) in enumerate(REVIEWS))]
    path.write_bytes("".join(separator.join(map(str, line)) + "\n" for line in lines[: rows + 1]).encode(encoding))
    return path


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_is_that_by_which_the_header_has_the_columns(tmp_path: Path, separator: str) -> None:
    assert texts(separated(tmp_path / "a.csv", separator)) == TEXTS


@pytest.mark.parametrize(("ending", "separator", "named"), [("csv", "^", "^"), ("csv", "\t", r"\t"), ("tsv", ";", ";")])
def test_a_named_separator_is_used(tmp_path: Path, ending: str, separator: str, named: str) -> None:
    path = separated(tmp_path / f"a.{ending}", separator)
    task = Table(file=str(path), text="review", label="stars", separator=named)
    assert {row.text for row in read_table(path, task.settings)} == {
        text if ending == "csv" else f'"{text}"' for text in TEXTS
    }


def test_a_column_that_is_missing_by_every_separator_is_refused_with_the_most_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body, or so;stars;id\n")
    with pytest.raises(ValueError, match=r"text='review': a\.csv has no such column; there are body, or so, stars, id"):
        texts(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl"])
def test_the_encoding_of_a_byte_order_mark_is_used(tmp_path: Path, ending: str, encoding: str) -> None:
    path = write_table(tmp_path / f"a.{ending}")
    path.write_bytes(path.read_bytes().decode().encode(encoding))
    assert texts(path) == TEXTS


def test_text_that_is_not_utf_8_is_read_as_latin_1_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = separated(tmp_path / "a.csv", ",", encoding="latin-1")
    path.write_bytes(path.read_bytes().replace(b"id, or not", b"id"))
    with caplog.at_level(logging.WARNING):
        assert [row.text for row in read_table(path, Settings("review", "stars"))] == TEXTS
    assert caplog.messages == [
        "a.csv: 60 of 60 lines with other than ASCII characters are not UTF-8; the file is read as Latin-1 (cp1252); "
        "encoding=NAME reads another, such as gb18030"
    ]


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_a_named_encoding_is_used_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    rows = [("房间也很干净", 0), ("这家酒店的服务非常好", 1)]
    path = write_table(tmp_path / f"a.{ending}", rows)
    if ending != "csv":  # json escapes them
        path.write_text(path.read_text().encode().decode("unicode_escape"), encoding="utf-8")
    path.write_bytes(path.read_text(encoding="utf-8").encode("gb18030"))
    with caplog.at_level(logging.WARNING):
        assert texts(path, encoding="gb18030") == [text for text, _ in rows]
    assert not caplog.messages
    with pytest.raises(ValueError, match=f"a.{ending}: UTF-16 stream does not start with BOM"):
        texts(path, encoding="utf-16")


@pytest.mark.parametrize("setting", [{"separator": ";"}, {"encoding": "latin-1"}])
def test_a_setting_that_no_file_uses_is_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    path = write_table(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*write null"):
        Table(file=str(path), text="review", label="stars", **setting)


OBJECTS = [{"review": text, "stars": label, "id": at} for at, (text, label) in enumerate(REVIEWS)]
COLUMNS = {name: [row[name] for row in OBJECTS] for name in OBJECTS[0]}


@pytest.mark.parametrize(
    "content",
    [
        OBJECTS,
        {"data": OBJECTS, "schema": {"fields": []}},
        COLUMNS,
        {name: {str(at): value for at, value in enumerate(values)} for name, values in COLUMNS.items()},
    ],
    ids=["array of objects", "data", "object of columns", "columns of pandas"],
)
def test_every_shape_of_json_is_read(tmp_path: Path, content: object) -> None:
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(content, indent=indent))
        assert texts(tmp_path / "a.json") == TEXTS


def test_json_lines_that_end_in_json_are_read(tmp_path: Path) -> None:
    assert texts(write_table(tmp_path / "a.jsonl").rename(tmp_path / "a.json")) == TEXTS


def test_an_element_that_is_no_object_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([*OBJECTS[:3], "a text", *OBJECTS[3:]]))
    rows = list(read_table(tmp_path / "a.json", Settings("review", "stars")))
    assert [(row.where, row.problem) for row in rows if row.problem] == [("row 4", "not a JSON object")]
    assert len(rows) == 61


def write_groups(path: Path, rows: Sequence[tuple[str, object, object]]) -> Path:
    """A table of texts, labels and users in the format of its name."""
    names = ("review", "stars", "user")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table(columns), path)
    elif path.suffix == ".csv":
        lines = [names, *(["" if value is None else value for value in row] for row in rows)]
        path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    else:
        path.write_text(json.dumps(columns))
    return path


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_rows_of_a_group_are_in_one_split_and_groups_are_split_by_their_most_frequent_class(
    tmp_path: Path, ending: str
) -> None:
    # 40 users of class 0 and 10 of class 1, of whom each has one row of the other class, which is the first.
    labels = [int(user >= 40) for user in range(50)]
    rows = [(f"text {user} {at}", labels[user] ^ (at == 0), user) for user in range(50) for at in range(4)]
    path = write_groups(tmp_path / f"a.{ending}", [*rows, ("alone", 0, None)])
    task = Table(file=str(path), text="review", label="stars", group="user")
    users = {split: {example.group for example in task.rows[split]} for split in SPLITS}
    assert sum(map(len, users.values())) == len(set.union(*users.values())) == 51
    assert sum(len(task.rows[split]) for split in SPLITS) == 201
    for split in SPLITS[1:]:
        assert sorted(labels[int(str(user))] for user in users[split] - {None}) == [0] * 4 + [1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": "stars"}, "group='stars': it must be another column than those of texts and labels"),
        ({"group": "users"}, r"group='users': a\.csv has no such column; there are review, stars, user"),
    ],
)
def test_an_invalid_group_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write_groups(tmp_path / "a.csv", [("text", 0, 0)])
    with pytest.raises(ValueError, match=message):
        _ = Table(file=str(path), text="review", label="stars", **settings).rows


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_rows_without_a_label_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    rows = [(f"text {at}", None if at % 3 else at % 2, at) for at in range(90)]
    path = write_groups(tmp_path / f"a.{ending}", [*rows, (" ", 1, 90)])
    with caplog.at_level(logging.WARNING):
        task = Table(file=str(path), text="review", label="stars")
        assert sorted(each.text for split in SPLITS for each in task.rows[split]) == sorted(
            text for text, label, _ in rows if label is not None
        )
    assert [message.partition(", such as ")[0] for message in caplog.messages] == [
        f"a.{ending}: skipped: 1 of 31 rows are unusable",
        f"a.{ending}: left out 60 of 90 rows, without a label",
    ]
    assert task.class_names == ["0", "1"]


@pytest.mark.parametrize("label", [None, "", " ", float("nan")])
def test_a_table_without_any_label_is_refused(tmp_path: Path, label: object) -> None:
    path = write_groups(tmp_path / "a.json", [("a text", label, 1), ("another", label, 2)])
    with pytest.raises(ValueError, match=r"a\.json: none of its 2 rows has a label in 'stars'"):
        _ = Table(file=str(path), text="review", label="stars").rows


@pytest.mark.parametrize("settings", [{}, {"tokens": "words"}, {"tokens": "bpe", "vocabulary": 300, "length": 9}])
def test_large_splits_are_stored_and_give_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    path = write_table(tmp_path / "a.csv")
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    in_memory = Table(file=str(path), text="review", label="stars", **settings)
    batches = {split: list(in_memory.batches(split, 5, shuffle=3)) for split in SPLITS}
    monkeypatch.setattr("spaces.tasks.sources.labelled_texts.LARGE", 1)
    monkeypatch.setattr("spaces.tasks.sources.labelled_texts.CHUNK", 7)
    for _ in range(2):  # stored, and found
        stored = Table(file=str(path), text="review", label="stars", **settings)
        assert stored.spec == in_memory.spec
        assert stored.sample(8).inputs.equal(in_memory.sample(8).inputs)
        for split in SPLITS:
            assert stored.contents(split) == in_memory.contents(split)
            for found, expected in zip(stored.batches(split, 5, shuffle=3), batches[split], strict=True):
                assert torch.equal(found.inputs, expected.inputs)
                assert (found.padding is None) == (expected.padding is None)
                assert expected.padding is None or torch.equal(found.padding, expected.padding)
                assert torch.equal(found.labels, expected.labels)
    assert len(list((tmp_path / "cache").iterdir())) == 3
