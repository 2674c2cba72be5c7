"""Texts that are encoded once per tokenizer, compared with tasks that encode them for one length alone."""

import math

import pytest
import torch
from test_tokens import ROWS
from text_tables import write_table

from spaces.build import invalid_corners
from spaces.space import Space
from spaces.tasks import MAX_VARIANTS, SPLITS
from spaces.tasks.sources import encodings
from spaces.tasks.sources.encodings import PerTokens
from spaces.tasks.sources.learned_tokens import learn
from spaces.tasks.sources.tokens import LibraryEncoder, TokenSettings
from spaces.tasks.table import Table
from spaces.tasks.text import Text


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    return str(write_table(tmp_path / "a.csv", ROWS))


@pytest.fixture
def encoded(monkeypatch):
    """The number of texts that the library has encoded since."""
    counts, encode = [], LibraryEncoder.encode
    monkeypatch.setattr(LibraryEncoder, "encode", lambda self, texts: counts.append(len(texts)) or encode(self, texts))
    return counts


def special_tokens(folder):
    """A tokenizer file whose texts end with a special token, also where they are truncated."""
    from tokenizers import processors

    tokenizer = learn("words", 60, [text for text, _ in ROWS])
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    tokenizer.save(str(folder / "mine.json"))
    return {"tokens": str(folder / "mine.json"), "special_tokens": True}


def same(found, expected):
    padding = torch.zeros_like(found.inputs, dtype=torch.bool) if found.padding is None else found.padding
    assert (found.padding is None) == (expected.padding is None)
    assert found.padding is None or torch.equal(found.padding, expected.padding)
    assert torch.equal(found.inputs.masked_fill(padding, 0), expected.inputs.masked_fill(padding, 0))
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("tokens", ["words", "bytes", "special"])
@pytest.mark.parametrize("large", [math.inf, 1, 1500], ids=["memory", "files", "both"])
@pytest.mark.parametrize("lengths", [(6, 4, 3, 6), (3, 4, 20), (9, 2, 12, 5)])
def test_variants_of_any_order_of_lengths_have_the_examples_of_their_own(
    file, tmp_path, monkeypatch, tokens, large, lengths
):
    settings = special_tokens(tmp_path) if tokens == "special" else {"tokens": tokens}
    alone = {
        length: Table(file=file, text="review", label="stars").with_input(**settings, length=length)
        for length in lengths
    }
    expected = {length: {split: task.data(split) for split in SPLITS} for length, task in alone.items()}
    monkeypatch.setattr(encodings, "LARGE", large)
    task = Table(file=file, text="review", label="stars", length=2)
    _ = task.spec
    for length in lengths:
        varied = task.variant({**settings, "length": length})
        assert varied.spec == alone[length].spec
        for split in SPLITS:
            found = varied.data(split)
            rows = torch.arange(found.size)
            same(found.select(rows), expected[length][split].select(rows))
            assert found.select(rows[:2]).inputs.dtype == torch.int64


def test_texts_are_encoded_once_for_all_lengths_of_a_space_and_stored_once(file, tmp_path, monkeypatch, encoded):
    monkeypatch.setattr(encodings, "LARGE", 1)
    choices = {"words": {"tokens": "words", "lowercase": {"choice": [True, False]}, "length": {"choice": [3, 9]}}}
    tree = {
        "input": {"choice": choices},
        "attention": {"softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}},
        "model": {"_target_": "spaces.models.encoder.Encoder", "depth": 1, "width": 8, "heads": 2},
        "train": {"epochs": 1, "lr": 0.01},
    }
    task = Table(file=file, text="review", label="stars")
    assert invalid_corners(Space(tree), task) == []
    assert sum(encoded) == 2 * sum(map(len, task.rows.values())), "once for each of the two tokenizers"
    assert len(list((tmp_path / "cache").iterdir())) == 2 * len(SPLITS)


def test_truncated_texts_are_counted_for_each_length(file, caplog):
    other, task = (Table(file=file, text="review", label="stars") for _ in range(2))
    caplog.set_level("INFO")
    whole = other.with_input(tokens="words", length=99).ids
    lengths = [len(ids) for split in SPLITS for ids in whole[split]]
    for length in (4, 2, 3):
        caplog.clear()
        assert task.variant({"tokens": "words", "length": length}).spec.length == length
        (message,) = [each.getMessage() for each in caplog.records if "truncated" in each.getMessage()]
        assert message.startswith(f"{sum(each > length for each in lengths)} of {len(lengths)} texts")


def test_what_is_kept_is_that_of_the_tokenizers_used_last():
    kept = PerTokens()
    tokens = [TokenSettings("words", size) for size in range(2, 3 + MAX_VARIANTS)]
    for each in tokens[:-1]:
        kept.of(each)["train"] = each
    assert kept.of(tokens[0]) == {"train": tokens[0]}
    kept.of(tokens[-1])
    assert [kept.of(tokens[at]) == {"train": tokens[at]} for at in (0, 2, 1)] == [True, True, False]


def test_windows_of_text_files_are_encoded_once_for_all_lengths(tmp_path, encoded):
    for label in ("a", "b"):
        for number in range(4):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.txt").write_text(f"{ROWS[number][0]} {label} " * 9, encoding="utf-8")
    task = Text(folder=str(tmp_path), length=24)
    for length in (2, 5, 3):
        varied = task.variant({"tokens": "words", "vocabulary": 30, "length": length})
        assert varied.data("train").inputs.shape[1] <= length
    assert sum(encoded) == sum(len(task.rows(split)) for split in SPLITS)
