"""Small tables of texts with labels in every format that is read, written by the tests themselves."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

Rows = Sequence[tuple[object, object]]
REVIEWS: Rows = [(f"number {at}, {'good' if at % 3 else 'bad'}: é{'x' * at}", at % 3) for at in range(60)]
FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")


def write_table(path: Path, rows: Rows = REVIEWS, *, text: str = "review", label: str = "stars") -> Path:
    """A column before the two and one between them, which nobody asked for."""
    columns = ("id", text, "source", label)
    found = [(at, row[0], "shop", row[1]) for at, row in enumerate(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        arrays = [list(values) for values in zip(*found, strict=True)]
        parquet.write_table(pyarrow.table(dict(zip(columns, arrays, strict=True))), path, row_group_size=16)
    elif path.suffix == ".json":
        path.write_text(json.dumps([dict(zip(columns, row, strict=True)) for row in found]))
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(dict(zip(columns, row, strict=True)))}\n" for row in found))
    elif path.suffix == ".tsv":
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [columns, *found]), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *found])
    return path


def save_dataset(folder: Path, rows: Rows = REVIEWS, *, text: str = "review", label: str = "stars") -> Path:
    """A Hugging Face data set with the split ``train``."""
    datasets = pytest.importorskip("datasets", reason="an extra: pip install 'paretoformer[huggingface]'")
    train = datasets.Dataset.from_dict({text: [row[0] for row in rows], label: [row[1] for row in rows]})
    datasets.DatasetDict(train=train).save_to_disk(folder)
    return folder
