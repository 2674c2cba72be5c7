"""Text classification tables: examples, splits, classes, and handling of unusable rows and files."""

from __future__ import annotations

import csv
import gzip
import logging
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet
from text_tables import FORMATS, REVIEWS, Rows, write_table

from spaces.tasks import SPLITS, Split
from spaces.tasks.sources.checks import check_data
from spaces.tasks.table import Table

Pair = tuple[str, str]


def table(path: Path, rows: Rows | None = None, **settings: Any) -> Table:
    if rows is not None:
        write_table(path, rows)
    return Table(**({"file": str(path), "text": "review", "label": "stars"} | settings))


def pairs(task: Table, split: Split) -> list[Pair]:
    """Texts and labels, decoded from the batch."""
    inputs, padding, labels, *_ = task.examples(split)
    kept = torch.ones_like(inputs, dtype=torch.bool) if padding is None else ~padding
    texts = [bytes(row[real].tolist()).decode() for row, real in zip(inputs, kept, strict=True)]
    return list(zip(texts, [task.class_names[label] for label in labels.tolist()], strict=True))


def every(task: Table) -> list[Pair]:
    return [pair for split in SPLITS for pair in pairs(task, split)]


@pytest.mark.parametrize("ending", FORMATS)
def test_every_row_is_in_exactly_one_split_unchanged(tmp_path: Path, ending: str) -> None:
    task = table(write_table(tmp_path / f"reviews.{ending}"))
    assert sorted(every(task)) == sorted((str(text), str(label)) for text, label in REVIEWS)
    assert [len(pairs(task, split)) for split in SPLITS] == [48, 6, 6]
    order = [text for text, _ in REVIEWS]
    for split in SPLITS:
        places = [order.index(text) for text, _ in pairs(task, split)]
        assert places == sorted(places)
    assert task.spec.length == max(len(str(text).encode()) for text, _ in REVIEWS)


def test_the_text_alone_determines_its_split(tmp_path: Path) -> None:
    task, shuffled = (
        table(tmp_path / name, rows)
        for name, rows in (("a.csv", REVIEWS), ("b.jsonl", random.Random(0).sample(REVIEWS, len(REVIEWS))))
    )
    for split in SPLITS:
        assert sorted(pairs(task, split)) == sorted(pairs(shuffled, split))


def test_copies_of_a_text_are_in_the_same_split(tmp_path: Path) -> None:
    task = table(tmp_path / "a.csv", [*REVIEWS, *REVIEWS])
    texts = [{text for text, _ in pairs(task, split)} for split in SPLITS]
    assert sum(map(len, texts)) == len(set.union(*texts)) == len(REVIEWS)


def test_texts_are_split_by_all_of_their_content_before_they_are_truncated(tmp_path: Path) -> None:
    preamble = [(f"the same preamble, then number {at}", at % 2) for at in range(60)]
    task = table(tmp_path / "a.csv", preamble, length=17)
    assert [len(task.rows[split]) for split in SPLITS] == [48, 6, 6]
    assert len({text for text, _ in every(task)}) == 1


def test_a_split_with_its_own_file_is_that_file(tmp_path: Path) -> None:
    other: Rows = [("judge me", 1), ("and me", 2), ("and me", 2), ("me, too", 0)]
    path = write_table(tmp_path / "validation.jsonl", other)
    task = table(tmp_path / "train.csv", REVIEWS, validation_file=str(path))
    assert pairs(task, "validation") == [(str(text), str(label)) for text, label in other]
    assert [len(pairs(task, split)) for split in ("train", "test")] == [54, 6]
    assert task.chance == 2 / 4
    both = table(tmp_path / "train.csv", validation_file=str(path), test_file=str(path))
    assert pairs(both, "test") == pairs(both, "validation")
    assert len(pairs(both, "train")) == len(REVIEWS)


def test_a_rare_class_is_in_every_split(tmp_path: Path) -> None:
    rows: Rows = [(f"text {at}", "rare" if at % 50 == 0 else "common") for at in range(250)]
    task = table(tmp_path / "a.csv", rows)
    assert [Counter(label for _, label in pairs(task, split))["rare"] for split in SPLITS] == [3, 1, 1]
    assert [len(pairs(task, split)) for split in SPLITS] == [200, 25, 25]
    check_data(task)


def test_a_class_of_one_row_is_in_train(tmp_path: Path) -> None:
    rows: Rows = [*REVIEWS, ("once", "rare"), ("twice", "rarer"), ("twice", "rarer")]
    assert {label for _, label in pairs(table(tmp_path / "a.csv", rows), "train")} == {"0", "1", "2", "rare", "rarer"}


def test_copies_of_a_text_with_different_labels_are_in_the_same_split(tmp_path: Path) -> None:
    task = table(tmp_path / "a.csv", [(f"text {at % 30}", at % 7) for at in range(120)])
    texts = [{text for text, _ in pairs(task, split)} for split in SPLITS]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 30


def test_a_limit_keeps_a_random_subset(tmp_path: Path) -> None:
    by_label = sorted(REVIEWS, key=lambda row: int(str(row[1])))
    task = table(tmp_path / "a.csv", by_label, train=12, validation=3, test=2)
    assert [len(pairs(task, split)) for split in SPLITS] == [12, 3, 2]
    assert len({label for _, label in pairs(task, "train")}) == 3
    every_one = pairs(table(tmp_path / "a.csv"), "train")
    assert [pair for pair in every_one if pair in pairs(task, "train")] == pairs(task, "train")


def test_long_texts_are_truncated_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("é" * (2 + 9 * (at % 4 == 0)) + str(at), at % 2) for at in range(40)]
    with caplog.at_level(logging.WARNING):
        inputs, padding, *_ = table(tmp_path / "a.jsonl", rows, length=7).examples("train")
    assert inputs.shape[1] == 7
    assert padding is not None
    assert {bytes(row[:7].tolist()) for row in inputs if not (row == 0).any()} == {"éééé".encode()[:7]}
    message = "10 of 40 texts (25%) are longer than length=7 bytes and are truncated"
    assert message in caplog.messages


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 2, -1], ["-1", "2", "10"]),
        (["no", "yes", "Maybe"], ["Maybe", "no", "yes"]),
        (["b", "10", "9"], ["9", "10", "b"]),
        ([" spam", "ham ", "spam"], ["ham", "spam"]),
        ([True, False, True], ["False", "True"]),
        ([2.0, 1.0, 3.0], ["1", "2", "3"]),
    ],
)
def test_classes_are_sorted_labels(tmp_path: Path, labels: list[object], names: list[str]) -> None:
    task = table(tmp_path / "a.jsonl", [(f"text {at}", labels[at % 3]) for at in range(60)])
    assert task.class_names == names
    assert task.spec.classes == len(names)
    for text, label in every(task):
        assert label == names[names.index(str(labels[int(text[5:]) % 3]).removesuffix(".0").strip())]


def test_the_largest_classes_are_kept_and_the_others_omitted_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["a"] * 5 + ["b"] * 30 + ["c"] * 4 + ["d"] * 21
    rows = [(f"text {at}", label) for at, label in enumerate(labels)]
    with caplog.at_level(logging.WARNING):
        task = table(tmp_path / "a.csv", rows, classes=2)
        assert Counter(label for _, label in every(task)) == {"b": 30, "d": 21}
    assert "omitted: 2 of 4 classes with 9 rows, such as 'a'; classes=2 keeps the largest" in caplog.messages
    validation = Counter(label for _, label in pairs(task, "validation"))
    assert task.chance == max(validation.values()) / validation.total()


def test_quoted_csv_fields_may_contain_separators_and_quotes_mean_nothing_in_tsv(tmp_path: Path) -> None:
    texts = [f'"Line one,\nline ""two""", he said, {"x" * at}' for at in range(30)]
    task = table(tmp_path / "a.csv", [(text, at % 2) for at, text in enumerate(texts)])
    assert {text for text, _ in every(task)} == set(texts)
    quoted = [f'"{"x" * at}" said "she, {at}' for at in range(30)]
    task = table(tmp_path / "a.tsv", [(text, at % 2) for at, text in enumerate(quoted)])
    assert {text for text, _ in every(task)} == set(quoted)


def test_a_byte_order_mark_and_very_long_texts_are_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = write_table(tmp_path / "a.csv", [("long " * 40_000 + str(at), at % 2) for at in range(20)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"id,review", b"review,review"))
    assert len(every(table(path))) == 20
    assert csv.field_size_limit() == limit


def line(number: int, content: bytes) -> Callable[[Path], None]:
    """Replaces a line of a file."""

    def damage(path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number - 1] = content + b"\n"
        path.write_bytes(b"".join(lines))

    return damage


def cell(number: int, column: str, value: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        columns = parquet.read_table(path).to_pydict()
        columns[column][number - 1] = value
        parquet.write_table(pyarrow.table(columns), path)

    return damage


BROKEN: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "csv, empty text": ("csv", line(7, b'6," ",shop,1'), "line 7: empty text"),
    "csv, not UTF-8": ("csv", line(9, b"8,caf\xe9,shop,1"), "line 9: not UTF-8"),
    "csv, label not UTF-8": ("csv", line(9, b"8,cafe,shop,\xff"), "line 9: not UTF-8"),
    "csv, fields short": ("csv", line(61, b"8,fine"), "line 61: 2 fields, but the header has 4"),
    "csv, fields over": ("csv", line(2, b"8,oh, fine,shop,1"), "line 2: 5 fields, but the header has 4"),
    "csv, after a quote": ("csv", line(5, b'8,"oh" dear,shop,1'), "line 5: ',' expected after '\"'"),
    "csv, quote left open": ("csv", line(61, b'8,"oh dear,shop,1'), "line 61: unexpected end of data"),
    "tsv, fields over": ("tsv", line(3, b"8\toh\tfine\tshop\t1"), "line 3: 5 fields"),
    "jsonl, not JSON": ("jsonl", line(4, b'{"review": }'), "line 4: not JSON: Expecting value at column 12"),
    "jsonl, not UTF-8": ("jsonl", line(4, b'{"review": "\xe9"}'), "line 4: not UTF-8"),
    "jsonl, half a character": ("jsonl", line(4, rb'{"review": "\ud83d", "stars": 1}'), "line 4: not UTF-8"),
    "jsonl, a list": ("jsonl", line(4, b'["fine", 1]'), "line 4: not a JSON object"),
    "jsonl, no text": ("jsonl", line(60, b'{"stars": 1}'), "line 60: empty text"),
    "jsonl, text is a number": ("jsonl", line(1, b'{"review": 7, "stars": 1}'), "line 1: 7 is not a text"),
    "jsonl, a fraction": (
        "jsonl",
        line(1, b'{"review": "so", "stars": 0.5}'),
        "line 1: 0.5 is not a label",
    ),
    "parquet, no text": ("parquet", cell(33, "review", None), "row 33: empty text"),
}


@pytest.mark.parametrize(("ending", "damage", "message"), BROKEN.values(), ids=BROKEN)
def test_an_unusable_row_among_many_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str, damage: Callable[[Path], None], message: str
) -> None:
    path = write_table(tmp_path / f"reviews.{ending}")
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert len(every(table(path))) == len(REVIEWS) - 1
    assert len(caplog.messages) == 1
    assert f"reviews.{ending}: skipped: 1 of 60 rows are unusable, such as {message}" in caplog.messages[0]


def test_line_numbers_count_newlines_within_fields(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_table(tmp_path / "a.csv", [("two\nlines, " + "x" * at, at % 2) for at in range(30)])
    path.write_bytes(path.read_bytes() + b"\n\n31,,shop,1\n")
    with caplog.at_level(logging.WARNING):
        assert len(every(table(path))) == 30
    assert "1 of 31 rows are unusable, such as line 64: empty text" in caplog.text


def test_a_parquet_row_that_is_not_utf_8_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = pyarrow.array([f"text {at}".encode() for at in range(29)] + [b"caf\xe9"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"review": texts, "stars": [0, 1] * 15}), tmp_path / "a.parquet")
    with caplog.at_level(logging.WARNING):
        assert len(every(table(tmp_path / "a.parquet"))) == 29
    assert "1 of 30 rows are unusable, such as row 30: not UTF-8" in caplog.text


def test_many_unusable_rows_are_refused(tmp_path: Path) -> None:
    rows = [("" if at in (4, 7) else f"text {at}", at % 2) for at in range(20)]
    assert len(every(table(tmp_path / "a.csv", rows))) == 18
    with pytest.raises(ValueError, match=r"^b\.csv: 2 of 19 rows are unusable, such as line 6: empty text$"):
        table(tmp_path / "b.csv", rows[:19]).examples("train")


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        ("csv", b"body,stars\na,1\n", "text='review': reviews.csv has no such column; there are body, stars"),
        ("csv", b"", "text='review': reviews.csv has no such column; there are none"),
        ("csv", b'"review,stars\n', "reviews.csv: unexpected end of data"),
        ("tsv", b"review\tlabel\na\t1\n", "label='stars': reviews.tsv has no such column; there are review, label"),
        ("json", b'[{"review": "a"}]', "label='stars': reviews.json has no such column; there are review"),
        ("json", b'{"review": "a", "stars": 1}', "review, stars must be arrays of the same length"),
        ("json", b'{"review": ["a"], "stars": []}', "review, stars must be arrays of the same length"),
        ("json", b'{"b": ["a"]}', "text='review': reviews.json has no such column; there are b"),
        ("json", b'"review"', "reviews.json: it must be an array of objects, or an object of columns"),
        ("json", b'[{"review": 1},\n}', "reviews.json: not JSON: .* at line 2, column 1"),
        ("csv.gz", b"review,stars\na,1\n", "reviews.csv.gz: Not a gzipped file"),
        ("csv.gz", gzip.compress(b"review,stars\na,1\n", mtime=0)[:-9], "reviews.csv.gz: Compressed file ended before"),
        ("csv.bz2", b"review,stars\na,1\n", "reviews.csv.bz2: Invalid data stream"),
        ("csv.xz", b"review,stars\na,1\n", "reviews.csv.xz: Input format not supported"),
        ("jsonl", b'{"review": "a", "b": 1}\n\n{"c": 2}\n', "label='stars': .*; there are review, b, c"),
        pytest.param("json", b"[" * 100_000, "reviews.json: .*nested", id="json of brackets"),
        pytest.param("jsonl", b"[" * 100_000, "reviews.jsonl: .*unusable", id="jsonl of brackets"),
        ("csv", "review,stars".encode("utf-16-le"), r"text='review': .*; there are r\\x00e\\x00v.*, \\x00s\\x00t"),
        ("tsv", b"\x1b[2J\x00\x07\ta", r"text='review': .*; there are \\x1b\[2J\\x00\\x07, a$"),
        ("jsonl", b"review,stars\na,1\n", "reviews.jsonl: 2 of 2 rows are unusable, such as line 1: not JSON"),
        (
            "parquet",
            b"review,stars\na,1\n",
            r"reviews\.parquet: no Parquet that can be read: Parquet magic bytes not found",
        ),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, ending: str, content: bytes, message: str) -> None:
    path = tmp_path / f"reviews.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as found:
        table(path).examples("train")
    str(found.value).encode()  # can be printed


def test_a_missing_parquet_column_is_refused_with_a_list_of_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"text='body': a\.parquet has no such column; there are id, review, source"):
        table(write_table(tmp_path / "a.parquet"), text="body").examples("train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"file": None},
            r"file=None: name a table that ends in \.csv, .*, \.parquet, with or without \.gz, ",
        ),
        ({"file": "nowhere.csv"}, "^file='nowhere.csv': no such file"),
        ({"file": "reviews.xlsx"}, r"^file='reviews\.xlsx': it must end in \.csv, "),
        ({"test_file": "nowhere.csv"}, "^test_file='nowhere.csv': no such file"),
        ({"text": "stars"}, "text='stars', label='stars': they must be two different columns"),
        ({"classes": 1}, "classes=1: it must be a whole number from 2"),
        ({"length": 0}, "length=0: it must be a whole number from 1"),
        ({"train": 0}, "train=0"),
        ({"separator": ";;"}, "separator=';;': it must be one character, such as ';'"),
        ({"separator": '"'}, "separator='\"': it must be one character"),
        ({"encoding": "latin-0"}, "encoding='latin-0': unknown encoding"),
        ({"encoding": "base64"}, "encoding='base64': .* name one of Python's, such as latin-1"),
    ],
)
def test_invalid_settings_are_refused_at_construction(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write_table(tmp_path / "reviews.csv")
    with pytest.raises(ValueError, match=message):
        table(path, **settings)
