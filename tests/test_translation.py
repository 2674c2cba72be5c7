"""The artificial languages against a second, independent translator; and parallel files."""

import logging
import math
import random
from collections import Counter
from itertools import pairwise

import pytest
import torch

from spaces.baselines.nearest import NearestSequences
from spaces.tasks import BOS, EOS, IGNORE_INDEX, SPLITS
from spaces.tasks.sources.checks import check_data
from spaces.tasks.sources.learned_tokens import learn
from spaces.tasks.sources.pair_tokens import learn_bpe, pair_tokens
from spaces.tasks.synthetic import language_pair
from spaces.tasks.translation import FIRST, Translation

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


@pytest.mark.parametrize("tokens", ["words", "bytes", "bpe"])
def test_token_ids_encode_the_sentences(tokens):
    task = Translation(**SMALL, tokens=tokens, length=200, answer_length=200, clauses=1)
    examples = task.examples("validation")
    words = {word for pair in task.pairs["train"] for text in pair for word in text.split()}
    for row, pair in enumerate(task.pairs["validation"]):
        kept = examples.inputs[row][~examples.padding[row]]
        for text, ids in ((pair.source, kept), (pair.target, examples.labels[row])):
            expected = [word if tokens != "words" or word in words else "?" for word in text.split()]
            assert task.text(ids) == " ".join(expected)
        if tokens != "bpe":
            assert len(kept) == len(pair.source.encode() if tokens == "bytes" else pair.source.split())
        label = examples.labels[row][examples.labels[row] != IGNORE_INDEX]
        assert (label[-1], examples.decoder_input_ids[row, 0]) == (EOS, BOS)
        assert torch.equal(examples.decoder_input_ids[row, 1 : len(label)], label[:-1])


def test_rare_words_are_unknown():
    task = Translation(**SMALL, vocabulary=5)
    assert (task.spec.vocabulary, task.spec.classes) == (FIRST + 6, FIRST + 6)
    assert (task.examples("train").inputs == FIRST).any()
    counts = Counter(word for pair in task.pairs["train"] for text in pair for word in text.split())
    (most_frequent, _), *_ = counts.most_common()
    assert task.text(torch.tensor([FIRST + 1, FIRST, EOS, FIRST + 1])) == f"{most_frequent} ?"


def test_a_byte_pair_encoding_is_learned_from_train_and_restores_any_text():
    texts = ["Die Datei %s fehlt.", "The file %s is missing."] * 20
    tokens = pair_tokens("bpe", 300, texts)
    assert tokens.vocabulary <= 300
    assert len(tokens.encode(texts)[0]) < 12
    for text in (*texts, "", "Größe: ☃ 100\u00a0%", "-x,  ..ÄÖ<b>", "文件 %d"):
        (ids,) = tokens.encode([text])
        assert tokens.decode(ids) == text
        assert all(0 <= number < tokens.vocabulary for number in ids)


def test_a_tokenizer_file_must_restore_the_sentences(parallel, tmp_path):
    learn_bpe(["wort word"], 260).save(str(tmp_path / "exact.json"))
    assert read(parallel, tokens=str(tmp_path / "exact.json"))["train"][0].target == "word 0 train"
    learn("bpe", 40, ["wort word"]).save(str(tmp_path / "lossy.json"))
    with pytest.raises(ValueError, match=r"this tokenizer does not restore .* sentences, such as"):
        read(parallel, tokens=str(tmp_path / "lossy.json"))


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
    outputs = [task.eval_step(Oracle(ids), batch) for batch in task.batches("test", 8)]
    score = task.compute_metrics(outputs)
    assert task.compute_objective(outputs) == score["bleu"]
    assert (score["bleu"], score["exact"]) == (bleu, exact)
    assert score["chrf"] == pytest.approx(100) or score["chrf"] < 60


def test_a_translation_that_does_not_end_is_as_long_as_the_model_has_positions_whatever_its_reference():
    task, limits = Translation(**SMALL), set()

    class Endless(torch.nn.Module):
        def generate(self, batch, tokens, *, ignore_eos=False):
            limits.add(tokens)
            return torch.full((batch.size, tokens), FIRST)

    for batch in task.batches("test", 1):
        task.eval_step(Endless(), batch)
    assert limits == {task.spec.answer_length}


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
    task = Translation(folder=str(parallel), source="de", target="en", tokens="words", vocabulary=2)
    check_data(task)
    assert caplog.messages == ["1 of 3 validation examples are also in train"]


def test_the_answer_length_includes_the_end_of_sequence(parallel):
    (parallel / "train.en").write_text("one two three\n" * 30 + "one two three four\n" * 30)
    assert len(read(parallel, answer_length=4, tokens="words")["train"]) == 30


def test_empty_or_long_pairs_are_skipped_with_a_warning(parallel, caplog):
    with (parallel / "train.de").open("a") as source, (parallel / "train.en").open("a") as target:
        source.write("\neins zwei drei vier fünf\n")
        target.write("nothing\none\n")
    with caplog.at_level(logging.WARNING):
        assert len(read(parallel, length=4, tokens="words")["train"]) == 60
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
        ({"tokens": "unigram"}, "tokens='unigram': it must be words, bytes, bpe or a file that ends in .json"),
        ({"tokens": "bpe", "vocabulary": 255}, "vocabulary=255: it must be a whole number from 256"),
        ({"tokens": "bpe", "vocabulary": 10**12}, "vocabulary=1000000000000: it must be .* from 256 to 1048576"),
        ({"tokens": "bytes", "vocabulary": 300}, "vocabulary=300: with tokens=bytes nothing is learned"),
        ({"answer_length": 1}, "answer_length=1"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Translation(**settings)


# Input settings: other tokens, and neighbours ---------------------------------------------------------------------


def nearest(query, sources, besides):
    """The index, not ``besides``, of the source with the largest cosine of TF-IDF vectors of 1- and 2-grams."""

    def ngrams(ids):
        return Counter([*((a,) for a in ids), *pairwise(ids)])

    counts = [ngrams(source) for source in sources]
    documents = Counter(gram for each in counts for gram in each)

    def vector(each):
        weights = {
            gram: (1 + math.log(count)) * (1 + math.log((1 + len(sources)) / (1 + documents[gram])))
            for gram, count in each.items()
        }
        norm = math.sqrt(sum(weight**2 for weight in weights.values()))
        return {gram: weight / norm for gram, weight in weights.items()}

    one = vector(ngrams(query))
    cosines = [sum(one.get(gram, 0) * weight for gram, weight in vector(each).items()) for each in counts]
    return max((at for at in range(len(cosines)) if at != besides), key=cosines.__getitem__)


@pytest.mark.parametrize("tokens", ["words", "bpe"])
def test_the_targets_of_the_nearest_training_pairs_follow_the_source(tokens):
    base = Translation(train=40, validation=10, test=10, clauses=2)
    task = base.with_input(tokens=tokens, neighbours=1)
    sources, targets = task.ids["train"]
    for split in SPLITS:
        examples = task.examples(split)
        for row, source in enumerate(task.ids[split][0]):
            ids = examples.inputs[row] if examples.padding is None else examples.inputs[row][~examples.padding[row]]
            at = nearest(source, sources, besides=row if split == "train" else None)
            assert ids.tolist() == [*source, BOS, *targets[at], EOS]


def test_the_neighbours_of_training_pairs_are_other_ones_the_most_similar_first():
    rows = [[5, 6, 7], [5, 6, 7], [5, 6, 8], [9, 10, 8]]
    nearest = NearestSequences(rows)
    assert nearest.find(rows, 2, others=True).tolist() == [[1, 2], [0, 2], [0, 1], [2, 0]]  # of equal ones the first
    assert nearest.find(rows)[:, 0].tolist() == [0, 0, 2, 3]
    assert nearest.find([[10], [11], [8, 99, 10]], 4).tolist() == [[3, 0, 1, 2], [0, 1, 2, 3], [3, 2, 0, 1]]


def test_variants_have_the_same_pairs_and_references(parallel):
    task = Translation(folder=str(parallel), source="de", target="en")
    for settings in ({"vocabulary": 257}, {"tokens": "bytes"}, {"length": 2}, {"neighbours": 2}):
        varied = task.with_input(**settings)
        assert varied.pairs is task.pairs
        labels = varied.examples("test").labels
        assert [varied.text(row) for row in labels] == [pair.target for pair in task.pairs["test"]]
    assert task.with_input(length=2).spec.length == 2
    assert task.with_input(neighbours=2).spec.length > 2 * task.spec.length
    assert task.with_input(vocabulary=257).spec.answer_length > task.spec.answer_length


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "unigram"}, "tokens='unigram'"),
        ({"neighbours": -1}, "neighbours=-1"),
        ({"neighbours": 60}, "neighbours=60: train has 60 pairs"),
        ({"length": 0}, "length=0"),
    ],
)
def test_invalid_input_settings_are_refused(parallel, settings, message):
    with pytest.raises(ValueError, match=message):
        Translation(folder=str(parallel), source="de", target="en").with_input(**settings)


def test_the_spec_is_the_same_while_networks_are_built_on_the_meta_device(parallel):
    task = Translation(folder=str(parallel), source="de", target="en")
    with torch.device("meta"):
        spec = task.with_input(neighbours=1).spec
    assert spec == task.with_input(neighbours=1).spec


def test_files_have_defaults_of_their_own():
    artificial = Translation()
    assert (artificial.tokens, artificial.length, artificial.limits["train"]) == ("words", 48, 2000)
    own = Translation(folder=".", source="de", target="en", test=7)
    assert (own.tokens, own.length, own.answer_length) == ("bpe", 96, 96)
    assert own.limits == {"train": 20_000, "validation": 500, "test": 7}
