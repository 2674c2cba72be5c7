"""The artificial languages against a second, independent translator; and parallel files."""

import logging
import random

import pytest
import torch

from spaces.tasks import BOS, EOS, IGNORE_INDEX, SPLITS
from spaces.tasks.sources.checks import check_data
from spaces.tasks.synthetic import language_pair
from spaces.tasks.translation import FIRST, UNK, Translation

SMALL = {"train": 200, "validation": 20, "test": 20}


def translated(sentence: str) -> str:
    """Translates a sentence word by word, without access to its grammatical structure."""
    gender, many, clauses = "", False, []
    for clause in sentence.split(" and "):
        words = clause.split()
        adverb = words.pop() if words[-1] in language_pair.ADVERBS else None
        if words[0] in ("it", "they"):
            words.pop(0)
            subject = [f"l{gender}{'i' if many else 'u'}"]
        else:
            subject, gender, many, words = noun_phrase(words, "")
        verb, *words = words
        whom = noun_phrase(words, "n")[0] if words else []
        stem = verb if many else verb.removesuffix("s")
        clauses.append(" ".join([*([adverb[::-1]] if adverb else []), *subject, *whom, stem[::-1] + "ui"[many]]))
    return " ke ".join(clauses)


def noun_phrase(words: list[str], case: str) -> tuple[list[str], str, bool, list[str]]:
    known, *words = words
    adjectives = []
    while words[0] in language_pair.ADJECTIVES:
        adjectives.append(words.pop(0))
    noun = words.pop(0)
    many = noun not in language_pair.NOUNS
    stem = noun.removesuffix("s") if many else noun
    assert known in ("the", "some" if many else "a")
    gender = language_pair.NOUNS[stem]
    known = "the" if known == "the" else "any"
    phrase = [word[::-1] + gender + "ui"[many] + case for word in (stem, *adjectives, known)]
    return phrase, gender, many, words


def test_the_target_sentence_follows_from_the_source_sentence():
    generator = random.Random(1)
    for _ in range(500):
        sentence = language_pair.draw_sentence(generator, generator.randint(1, 4))
        assert language_pair.target_text(sentence) == translated(language_pair.source_text(sentence))


def test_a_sentence_translated_by_hand():
    cat, dogs = language_pair.Noun("cat", False, False, ("old", "red")), language_pair.Noun("dog", True, True, ())
    clauses = [language_pair.Clause(cat, "see", dogs, "today"), language_pair.Clause(None, "sleep", None, None)]
    assert language_pair.source_text(clauses) == "a old red cat sees the dogs today and it sleeps"
    assert language_pair.target_text(clauses) == "yadot tacau dloau derau ynaau godoin ehtoin eesu ke lau peelsu"


def test_sentences_are_distinct_within_and_across_splits():
    pairs = Translation(train=1500, validation=200, test=200, clauses=1).pairs
    sentences = [pair.source for split in SPLITS for pair in pairs[split]]
    assert [len(pairs[split]) for split in SPLITS] == [1500, 200, 200]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("tokens", ["words", "bytes"])
def test_token_ids_encode_the_sentences(tokens):
    task = Translation(**SMALL, tokens=tokens, length=200, answer_length=200, clauses=1)
    examples = task.examples("validation")
    for row, pair in enumerate(task.pairs["validation"]):
        known = tokens == "bytes" or all(word in task.vocabularies[1] for word in pair.target.split())
        if known:
            assert task.text(examples.labels[row]) == pair.target
        kept = examples.inputs[row][~examples.padding[row]]
        assert len(kept) == len(pair.source.encode() if tokens == "bytes" else pair.source.split())
        label = examples.labels[row][examples.labels[row] != IGNORE_INDEX]
        assert (label[-1], examples.decoder_input_ids[row, 0]) == (EOS, BOS)
        assert torch.equal(examples.decoder_input_ids[row, 1 : len(label)], label[:-1])


def test_rare_words_are_unknown():
    task = Translation(**SMALL, words=5)
    assert (task.spec.vocabulary, task.spec.classes) == (FIRST + 5, FIRST + 5)
    assert (task.examples("train").inputs == UNK).any()
    assert task.text(torch.tensor([FIRST, UNK, EOS, FIRST])) == f"{task.vocabularies[1][0]} ?"


class Oracle(torch.nn.Module):
    """A network that generates given token ids."""

    def __init__(self, ids):
        super().__init__()
        self.ids = ids

    def generate(self, batch, tokens, *, ignore_eos=False):
        return self.ids(batch)


@pytest.mark.parametrize(
    ("ids", "bleu", "exact"),
    [
        (lambda batch: batch.labels.clamp(min=EOS), pytest.approx(100), 1.0),
        (lambda batch: torch.full_like(batch.labels, EOS), 0.0, 0.0),
        (lambda batch: batch.labels.clamp(min=EOS).roll(1, 0), pytest.approx(20, abs=20), pytest.approx(0.0, abs=0.1)),
    ],
)
def test_a_perfect_translation_has_bleu_100(ids, bleu, exact):
    task = Translation(**SMALL)
    score = task.compute_metrics([task.eval_step(Oracle(ids), batch) for batch in task.batches("test", 8)])
    assert (score["bleu"], score["exact"]) == (bleu, exact)
    assert score["chrf"] == pytest.approx(100) or score["chrf"] < 60


@pytest.fixture
def parallel(tmp_path):
    for name, lines in (("train", 60), ("val", 6), ("test", 6)):
        for ending, word in (("de", "wort"), ("en", "word")):
            (tmp_path / f"{name}.{ending}").write_text("".join(f"{word} {n}  {name}\n" for n in range(lines)))
    return tmp_path


def read(folder, **settings):
    return Translation(folder=str(folder), source="de", target="en", **settings).pairs


def test_parallel_files_are_read_line_by_line(parallel):
    pairs = read(parallel)
    assert [len(pairs[split]) for split in SPLITS] == [60, 6, 6]
    assert pairs["validation"][3] == ("wort 3 val", "word 3 val")
    assert len(read(parallel, train=7)["train"]) == 7


def test_without_other_files_train_is_split_by_source_sentence(parallel):
    for name in ("val.de", "val.en", "test.de", "test.en"):
        (parallel / name).unlink()
    (parallel / "train.de").write_text((parallel / "train.de").read_text() * 2)
    (parallel / "train.en").write_text((parallel / "train.en").read_text() * 2)
    pairs = read(parallel)
    sources = {split: {pair.source for pair in pairs[split]} for split in SPLITS}
    assert sum(map(len, sources.values())) == 60 == len(set.union(*sources.values()))
    assert sum(map(len, pairs.values())) == 120
    assert [len(sources[split]) for split in SPLITS] == [48, 6, 6]


def test_sentences_in_two_splits_are_counted_by_their_text_not_by_ids_with_unknown_words(parallel, caplog):
    sentences = {"train": ["das rote Haus", "das Haus", "das"], "val": ["das blaue Haus", "das grüne Haus", "das Haus"]}
    for split, lines in sentences.items():
        for ending in ("de", "en"):
            (parallel / f"{split}.{ending}").write_text("".join(f"{line}\n" for line in lines))
    task = Translation(folder=str(parallel), source="de", target="en", words=2)
    check_data(task)
    assert caplog.messages == ["1 of 3 validation examples are also in train"]


def test_the_answer_length_includes_the_end_of_sequence(parallel):
    (parallel / "train.en").write_text("one two three\n" * 30 + "one two three four\n" * 30)
    assert len(read(parallel, answer_length=4)["train"]) == 30


def test_empty_or_long_pairs_are_skipped_with_a_warning(parallel, caplog):
    with (parallel / "train.de").open("a") as source, (parallel / "train.en").open("a") as target:
        source.write("\neins zwei drei vier fünf\n")
        target.write("nothing\none\n")
    with caplog.at_level(logging.WARNING):
        assert len(read(parallel, length=4)["train"]) == 60
    assert "skipped 2 of 62 train pairs" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "train.de").unlink(), "no train.de; there is test.de, test.en, train.en"),
        (lambda folder: (folder / "train.en").unlink(), "no train.en"),
        (lambda folder: (folder / "test.de").unlink(), "none of test.de; give both validation and test, or neither"),
        (lambda folder: (folder / "val.en").write_text("one\n"), "val.de has 6 lines and val.en 1; line by line"),
        (lambda folder: (folder / "val.en").write_bytes(b"a\nb\xff\n"), "val.en: line 2 is not UTF-8"),
        (lambda folder: [(folder / f"test.{end}").write_text("") for end in ("de", "en")], "no test pairs that fit"),
    ],
)
def test_unusable_files_are_refused(parallel, spoil, message):
    spoil(parallel)
    with pytest.raises(ValueError, match=message):
        read(parallel)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": "/nowhere", "source": "a", "target": "b"}, "no such folder"),
        ({"folder": ".", "source": "de"}, "a folder needs the file name endings of its languages"),
        ({"tokens": "letters"}, "tokens='letters': it must be words or bytes"),
        ({"answer_length": 1}, "answer_length=1"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Translation(**settings)
