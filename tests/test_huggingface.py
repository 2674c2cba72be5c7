"""Hugging Face data sets: local copies in every layout, classes, splits, and errors."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from text_tables import REVIEWS, write_table

from spaces.tasks import SPLITS
from spaces.tasks.huggingface import HuggingFace
from spaces.tasks.table import Table


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, with a temporary cache and offline."""
    library = pytest.importorskip("datasets", reason="an extra: pip install 'paretoformer[huggingface]'")
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return library


def task(folder: Path, **settings: Any) -> HuggingFace:
    return HuggingFace(**({"dataset": str(folder), "text": "review", "label": "stars"} | settings))


def columns(rows: list[Any]) -> dict[str, list[Any]]:
    return {"review": [text for text, _ in rows], "stars": [label for _, label in rows]}


def same(a: HuggingFace, b: Table) -> bool:
    """The same classes, and the same inputs, padding and labels in every split."""
    pairs = [zip(a.examples(split)[:3], b.examples(split)[:3], strict=True) for split in SPLITS]
    return a.class_names == b.class_names and all(torch.equal(x, y) for pair in pairs for x, y in pair)


@pytest.mark.parametrize("layout", ["saved", "saved alone", "parquet", "csv"])
def test_a_local_copy_gives_the_same_examples_as_a_table(tmp_path: Path, datasets: Any, layout: str) -> None:
    folder = tmp_path / "reviews"
    if layout.startswith("saved"):
        train = datasets.Dataset.from_dict(columns([*REVIEWS]))
        (train if layout == "saved alone" else datasets.DatasetDict(train=train, test=train)).save_to_disk(folder)
    else:
        write_table(folder / f"train.{layout}")
    assert same(task(folder), Table(file=str(write_table(tmp_path / "a.csv")), text="review", label="stars"))


def test_splits_of_the_data_set_are_kept(tmp_path: Path, datasets: Any) -> None:
    part = {name: datasets.Dataset.from_dict(columns([*REVIEWS][start::4])) for start, name in enumerate("abcd")}
    datasets.DatasetDict(part).save_to_disk(tmp_path / "reviews")
    named = task(tmp_path / "reviews", train_split="a", validation_split="b", test_split="d")
    assert [len(named.examples(split).inputs) for split in SPLITS] == [15, 15, 15]
    for split, name in zip(SPLITS, "abd", strict=True):
        assert [example.text for example in named.rows[split]] == part[name]["review"]
    split = task(tmp_path / "reviews", train_split="c", test_split="d")
    assert [len(split.examples(name).inputs) for name in SPLITS] == [12, 3, 15]


@pytest.mark.slow
def test_class_names_are_those_of_the_data_set_and_missing_labels_are_left_out(
    tmp_path: Path, datasets: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(f"text {at}", at % 2) for at in range(29)] + [("unlabelled", -1)]
    features = datasets.Features(review=datasets.Value("string"), stars=datasets.ClassLabel(names=["pos", "neg"]))
    datasets.Dataset.from_dict(columns(rows), features=features).save_to_disk(tmp_path / "reviews")
    with caplog.at_level(logging.WARNING):
        found = task(tmp_path / "reviews")
        assert found.class_names == ["neg", "pos"]
    assert "reviews, train: left out 1 of 30 rows, without a label" in caplog.text
    labels = {example.text: example.label for split in SPLITS for example in found.rows[split]}
    assert labels == {text: ("pos", "neg")[label] for text, label in rows[:-1]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_split": "dev"}, "test_split='dev': .*reviews has no such split; there are train, test"),
        ({"text": "body"}, "text='body': .*reviews, train has no such column; there are review, stars"),
        ({"text": "stars", "label": "review"}, "rows are unusable, such as row 1: 0 is not a text"),
        ({"subset": "en"}, "subset='en': .*reviews was written by save_to_disk and has no subsets"),
        ({"dataset": "someone/something"}, "dataset='someone/something': .*(offline|Offline)"),
        ({"dataset": "{}/nowhere"}, "dataset='.*/nowhere': "),
        ({"dataset": "{}/empty"}, "dataset='.*/empty': .*"),
    ],
)
def test_an_unusable_data_set_is_refused(tmp_path: Path, datasets: Any, settings: dict[str, str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    rows = datasets.Dataset.from_dict(columns([*REVIEWS]))
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "reviews")
    settings = {name: value.format(tmp_path) for name, value in settings.items()}
    with pytest.raises(ValueError, match=message):
        task(tmp_path / "reviews", **settings).examples("train")


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'paretoformer\[huggingface\]'"):
        HuggingFace(dataset="stanfordnlp/imdb").examples("train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "dataset=None: name a data set of the hub, such as stanfordnlp/imdb, or a folder"),
        ({"dataset": "a", "text": "label"}, "text='label', label='label': they must be two different columns"),
    ],
)
def test_invalid_settings_are_refused_at_construction(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HuggingFace(**settings)
