"""Tokenizers: what the tokens of texts are, learned from the training split alone, the same in every process."""

from __future__ import annotations

import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from text_tables import write_table

from spaces.tasks import IGNORE_INDEX, SPLITS
from spaces.tasks.sources.learned_tokens import LEARNED, UNKNOWN, learn
from spaces.tasks.sources.tokens import LibraryEncoder, TokenSettings
from spaces.tasks.table import Table
from spaces.tasks.text import Text

TEXTS = ["The cats sat, and the cat sat.", "It's 3.14: naïve Naïve_x!", "我喜欢这本书。とても良い本です", "สวัสดี 한국어"]
WITHOUT_BYTES = [kind for kind in LEARNED if kind != "byte_bpe"]
ROWS = [(f"{TEXTS[at % 4]} {at % 7} words of {'praise' if at % 3 else 'blame'}", at % 3) for at in range(90)]


@pytest.mark.parametrize(
    ("kind", "text", "tokens"),
    [
        ("words", "The cats sat, it's 3.14 Naïve_x!", "the cats sat , it ' s 3 . 14 naïve_x !"),
        ("words", "我喜欢 とても สวัสดี 한국어", "我 喜 欢 と て も ส ว ั ส ด ี 한국어"),
        ("characters", "A, b 书", "a , b 书"),
        ("bpe", "The cats sat", "the cats sat"),
        ("wordpiece", "The cats sat", "the cats sat"),
        ("subwords", "The cats sat", "the cats sat"),
    ],
)
def test_texts_are_split_into_tokens_without_case_and_white_space(kind, text, tokens):
    tokenizer = learn(kind, 500, [text.lower() for text in TEXTS] * 9 + [text])
    assert tokenizer.encode(text).tokens == tokens.split()


@pytest.mark.parametrize("kind", WITHOUT_BYTES)
def test_case_is_kept_if_texts_are_not_put_into_lower_case(kind):
    texts = ["The CATS sat"] * 9
    pieces = learn(kind, 500, texts, lowercase=False).encode("The CATS sat").tokens
    assert "".join(piece.removeprefix("##") for piece in pieces).strip("▁") == "TheCATSsat"
    assert learn(kind, 500, texts).get_vocab().keys().isdisjoint(pieces[:1]), "by default there is no case"


@pytest.mark.parametrize("kind", WITHOUT_BYTES)
def test_a_vocabulary_is_learned_up_to_its_size_with_the_unknown_token_first(kind):
    tokenizer = learn(kind, 40, TEXTS)
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) <= 40
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert vocabulary[UNKNOWN] == 0
    (ids,) = LibraryEncoder(tokenizer).encode(["\N{SNOWMAN}"])
    assert set(ids.tolist()) == {0}


def test_subwords_join_frequent_neighbours_of_scripts_without_spaces():
    for kind in ("bpe", "wordpiece"):
        assert learn(kind, 100, ["这本书很好", "这本书不好", "我的这本书", "这本书"]).encode("这本书").tokens == [
            "这本书"
        ]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["这本书很好", "这本书不好。", "我的 book", "这本书"], "unigram"),
        (["この本はとても良い", "良い本"], "unigram"),
        (["the book 书", "no good book"], "wordpiece"),
        (["좋은 책", "이 책"], "wordpiece"),
    ],
)
def test_subwords_suit_scripts_with_and_without_spaces(texts, kind):
    found, expected = (learn(each, 100, texts * 9) for each in ("subwords", kind))
    assert found.to_str() == expected.to_str()


def learned_from(texts):
    """What each kind of tokenizer has learned, as text."""
    learned = [learn(kind, 60, texts) for kind in LEARNED]
    return json.dumps(
        [[sorted(each.get_vocab().items()), [each.encode(text).ids for text in texts]] for each in learned]
    )


@pytest.mark.slow
def test_tokenizers_are_the_same_in_every_process():
    texts = [text for text, _ in ROWS]
    code = (
        "import json, sys\n"
        "from spaces.tasks.sources.learned_tokens import LEARNED, learn\n"
        f"{inspect.getsource(learned_from)}"
        "print(learned_from(json.load(sys.stdin)))"
    )
    # The order of sets and thus of ties would be another one there.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "1"}
    other = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(texts),
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    assert other.stdout.strip() == learned_from(texts)
    assert len(other.stdout) > 1000


@pytest.mark.parametrize("kind", LEARNED)
def test_ids_of_a_table_are_those_of_a_tokenizer_learned_from_train(tmp_path, kind):
    task = Table(file=str(write_table(tmp_path / "a.csv", ROWS)), text="review", label="stars")
    varied = task.with_input(tokens=kind, vocabulary=300, length=12)
    tokenizer = learn(kind, 300, [each.text for each in task.rows["train"]])
    assert varied.spec.vocabulary == tokenizer.get_vocab_size()
    for split in SPLITS:
        inputs, padding, labels, *_ = varied.data(split)
        assert torch.equal(labels, task.data(split).labels)
        kept = torch.ones_like(inputs, dtype=torch.bool) if padding is None else ~padding
        found = [row[real].tolist() for row, real in zip(inputs, kept, strict=True)]
        assert found == [tokenizer.encode(each.text).ids[:12] for each in task.rows[split]]
    assert task.spec.vocabulary == 256, "the task itself is unchanged"


def test_input_settings_that_are_not_given_stay(tmp_path):
    file = str(write_table(tmp_path / "a.csv", ROWS))
    task = Table(file=file, text="review", label="stars", tokens="words", vocabulary=30, length=6)
    shorter, larger, cased, pieces = (
        task.with_input(**settings)
        for settings in ({"length": 3}, {"vocabulary": 40}, {"lowercase": False}, {"tokens": "bpe"})
    )
    assert (shorter.tokens, shorter.spec.length) == (TokenSettings("words", 30), 3)
    assert (larger.tokens, larger.spec.length) == (TokenSettings("words", 40), 6)
    assert (cased.tokens, cased.spec.length) == (TokenSettings("words", 30, lowercase=False), 6)
    assert pieces.tokens == TokenSettings("bpe"), "a vocabulary is one of a kind of tokens"


def test_variants_that_differ_in_length_alone_learn_one_tokenizer(tmp_path):
    task = Table(file=str(write_table(tmp_path / "a.csv", ROWS)), text="review", label="stars")
    short, long, cased = (
        task.with_input(tokens="words", lowercase=lowercase, length=length)
        for length, lowercase in ((3, None), (6, None), (6, False))
    )
    assert short.encoder is long.encoder
    assert cased.encoder is not long.encoder


def test_a_tokenizer_file_is_read(tmp_path):
    learn("words", 50, TEXTS).save(str(tmp_path / "mine.json"))
    file = str(write_table(tmp_path / "a.csv", ROWS))
    task = Table(file=file, text="review", label="stars", tokens=str(tmp_path / "mine.json"))
    assert task.spec.vocabulary == learn("words", 50, TEXTS).get_vocab_size()
    (tmp_path / "broken.json").write_text("{}")
    for name, message in (("no.json", "no such file"), ("broken.json", "no tokenizer file")):
        with pytest.raises(ValueError, match=message):
            _ = task.with_input(tokens=str(tmp_path / name)).spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "sentences"}, "tokens='sentences': it must be bytes, characters, words, bpe"),
        ({"vocabulary": 100}, "vocabulary=100: with tokens=bytes nothing is learned"),
        ({"lowercase": False}, "lowercase=False: with tokens=bytes nothing is learned"),
        ({"tokens": "bpe", "lowercase": "no"}, "lowercase='no': it must be true or false"),
        ({"tokens": "bpe", "vocabulary": 1}, "vocabulary=1: it must be a whole number from 2"),
        (
            {"tokens": "bpe", "vocabulary": 10**12},
            "vocabulary=1000000000000: it must be .* from 2 to 1048576",
        ),
        ({"tokens": "byte_bpe", "vocabulary": 255}, "vocabulary=255: it must be a whole number from 256"),
        ({"tokens": "byte_bpe", "lowercase": True}, "lowercase=true: with tokens=byte_bpe texts are kept as they are"),
        ({"tokens": "bpe", "length": 0}, "length=0: it must be a whole number from 1"),
    ],
)
def test_invalid_input_settings_of_texts_are_refused(tmp_path, settings, message):
    task = Table(file=str(write_table(tmp_path / "a.csv", ROWS)), text="review", label="stars")
    with pytest.raises(ValueError, match=message):
        task.with_input(**settings)


def test_windows_of_text_files_are_encoded_by_a_learned_tokenizer(tmp_path):
    for label in ("a", "b"):
        for number in range(4):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.txt").write_text(f"{TEXTS[number]} {label} " * 9, encoding="utf-8")
    task = Text(folder=str(tmp_path), length=24)
    varied = task.with_input(tokens="words", vocabulary=30, length=8)
    tokenizer = learn("words", 30, [content[:24].decode(errors="ignore") for _, content in task.rows("train")])
    assert varied.spec.length <= 8
    for split in SPLITS:
        inputs, padding, labels, *_ = varied.data(split)
        assert torch.equal(labels, task.data(split).labels)
        lengths = [8] * len(inputs) if padding is None else (~padding).sum(1).tolist()
        expected = [tokenizer.encode(each[:24].decode(errors="ignore")).ids[:8] for _, each in task.rows(split)]
        assert [row[:n].tolist() for row, n in zip(inputs, lengths, strict=True)] == expected


def test_byte_pairs_spell_any_text_as_it_is():
    texts = [*TEXTS, "\tdef  f(x):\n    return 'a'\n", "\N{SNOWMAN} \x00"]
    encoder = LibraryEncoder(learn("byte_bpe", 300, TEXTS * 9))
    assert 256 < encoder.vocabulary <= 300
    for text, ids in zip(texts, encoder.encode(texts), strict=True):
        assert encoder._tokenizer.decode(ids.tolist()) == text
        assert encoder.bytes_per_token[ids].sum() == len(text.encode())


def language_tasks(folder, **settings):
    """The same windows as bytes and as byte pairs."""
    for number in range(9):
        (folder / f"{number}.txt").write_text(f"{TEXTS[number % 2]} {number} " * (number + 1), encoding="utf-8")
    task = Text(folder=str(folder), length=32, predict="next_byte", **settings)
    return task, task.with_input(tokens="byte_bpe", vocabulary=290)


def test_bits_per_byte_of_byte_pairs_are_the_bits_of_all_tokens_but_the_first_per_byte(tmp_path):
    _, task = language_tasks(tmp_path)
    generator = torch.Generator().manual_seed(0)
    bits, spelt, outputs = 0.0, 0, []
    for batch in task.batches("test", 2):
        logits = torch.randn(*batch.inputs.shape, task.spec.classes, generator=generator)
        outputs.append(task.eval_step(lambda _, logits=logits: logits, batch))
        for row, ids in enumerate(batch.inputs.tolist()):
            length = len(ids) if batch.padding is None else int((~batch.padding[row]).sum())
            for at in range(length):
                if (following := int(batch.labels[row, at])) >= 0:
                    assert at + 1 == length or following == ids[at + 1]
                    bits -= float(logits[row, at].log_softmax(-1)[following]) / math.log(2)
                    spelt += len(task.encoder._tokenizer.id_to_token(following))
    assert task.compute_metrics(outputs)["bits_per_byte"] == pytest.approx(bits / spelt)


def test_windows_as_byte_pairs_are_those_of_bytes(tmp_path):
    plain, task = language_tasks(tmp_path, generate=16)
    decode = task.encoder._tokenizer.decode
    for split in SPLITS:
        rows, data = plain.rows(split), task.examples(split)
        assert task.rows(split) == rows
        padding = torch.zeros_like(data.inputs, dtype=torch.bool) if data.padding is None else data.padding
        for (_, content), ids, hidden, labels in zip(rows, data.inputs, padding, data.labels, strict=True):
            found = [int(ids[0]), *labels[labels >= 0].tolist()]
            assert decode(found) == content.decode(errors="ignore")
            assert set(labels[hidden].tolist()) <= {IGNORE_INDEX}
    assert (plain.generated_tokens, plain.metric, task.metric) == (16, "bits_per_byte", "bits_per_byte")
    pairs = [len(ids) for ids in task.ids["train"]]
    assert task.generated_tokens == round(16 * sum(pairs) / sum(len(content) for _, content in plain.rows("train")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "words"}, "tokens='words': with predict=next_byte they are bytes, byte_bpe or"),
        ({"length": 8}, "length=8: with predict=next_byte it is that of the task"),
    ],
)
def test_input_that_does_not_spell_texts_is_refused_for_language_models(tmp_path, settings, message):
    task, _ = language_tasks(tmp_path)
    with pytest.raises(ValueError, match=message):
        task.with_input(**settings)
