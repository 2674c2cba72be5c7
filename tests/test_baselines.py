"""The classical baselines against slow and obvious computations, and through the contract of a network."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from spaces.baselines import one_hot_logits
from spaces.baselines.majority import Majority
from spaces.baselines.ngram import NGram
from spaces.baselines.of_task import evaluate_baselines
from spaces.baselines.parallel import CopiedSource, NearestPair
from spaces.baselines.svm import Svm
from spaces.baselines.tfidf import HASH_BITS, TfidfLogisticRegression, hashed_ngrams
from spaces.evaluation import margin_name
from spaces.metrics import METRICS
from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec
from spaces.tasks.asr import Asr
from spaces.tasks.digits import Digits
from spaces.tasks.multitask import Multitask
from spaces.tasks.patches import Patches
from spaces.tasks.recall import Recall
from spaces.tasks.text import Text
from spaces.tasks.translation import Translation
from spaces.tasks.tts import Tts


class Given(Task):
    """A task of given batches."""

    def __init__(self, spec: TaskSpec, **splits: Batch) -> None:
        self.spec, self.splits, self.chance = spec, splits, 0.5

    def examples(self, split: Split) -> Batch:
        return self.splits[split]


def texts(rows, *, length=6):
    """Ids of texts, padded, and labels."""
    inputs = torch.zeros(len(rows), length, dtype=torch.int64)
    padding = torch.ones(len(rows), length, dtype=torch.bool)
    for at, (text, _) in enumerate(rows):
        inputs[at, : len(text)] = torch.tensor(list(text.encode()))
        padding[at, : len(text)] = False
    return Batch(inputs, padding, torch.tensor([label for _, label in rows]))


def text_folder(folder, texts):
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    return folder


def test_the_majority_class_is_that_of_train_and_scored_on_the_others():
    spec = TaskSpec(length=1, vocabulary=9, classes=3, per_token=False)
    batches = [Batch(torch.zeros(len(each), 1).long(), None, torch.tensor(each)) for each in ([2, 2, 1], [1, 2], [1])]
    task = Given(spec, **dict(zip(("train", "validation", "test"), batches, strict=True)))
    baseline = Majority()
    baseline.fit(task)
    assert [baseline.evaluate(task, split)["accuracy"] for split in ("train", "validation", "test")] == [2 / 3, 0.5, 0]


def test_the_majority_class_per_token_does_not_count_positions_without_a_label():
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 1], [1, 0, IGNORE_INDEX, IGNORE_INDEX]])
    batch = Batch(torch.zeros_like(labels), None, labels)
    task = Given(TaskSpec(length=4, vocabulary=2, classes=2, per_token=True), train=batch, validation=batch, test=batch)
    baseline = Majority()
    baseline.fit(task)
    assert baseline.evaluate(task, "validation")["accuracy"] == pytest.approx(2 / 3)


def test_ngrams_of_padding_are_not_counted_and_equal_ngrams_share_a_column():
    batch = texts([("abcab", 0), ("ab", 0)])
    counts = hashed_ngrams(batch, 3)
    for row, text in enumerate(("abcab", "ab")):
        ngrams = Counter(text[at : at + n] for n in (1, 2, 3) for at in range(len(text) - n + 1))
        assert sorted(counts[row].data) == sorted(ngrams.values())
    assert counts.shape == (2, 1 << HASH_BITS)
    assert set(counts[1].indices) < set(counts[0].indices)


def test_tfidf_learns_an_ngram_that_decides_and_accepts_texts_without_any_known_one():
    rows = [(f"{letter}{word}", int(word == "no")) for letter in "abcdefgh" for word in ("yes", "no")]
    spec = TaskSpec(length=6, vocabulary=256, classes=3, per_token=False)
    task = Given(spec, train=texts(rows), validation=texts([("zno", 1), ("zyes", 0)]), test=texts([("!", 0)]))
    baseline = TfidfLogisticRegression()
    baseline.fit(task)
    assert baseline.evaluate(task, "validation")["accuracy"] == 1.0
    logits = baseline(texts([("!", 0), ("zno", 1)]))
    assert logits.shape == (2, 3)
    assert logits.exp().sum(1).tolist() == pytest.approx([1.0, 1.0])
    assert logits[:, 2].tolist() == [-math.inf, -math.inf]  # no example of this class in train


def test_an_svm_on_pixels_recognises_digits():
    for task in (Digits(), Patches(side=16, patch=4)):
        baseline = Svm("values")
        baseline.fit(task)
        assert all(baseline.evaluate(task, split)["accuracy"] > 0.95 for split in ("validation", "test"))


def test_statistics_do_not_depend_on_padding():
    spec = TaskSpec(length=5, features=2, classes=2, per_token=False)
    frames = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([frames, torch.full((1, 2, 2), 7.0)], dim=1)
    svm = Svm("statistics")
    svm.length = spec.length
    numbers = svm._numbers(Batch(padded, torch.tensor([[False] * 3 + [True] * 2]), torch.tensor([0])))
    expected = torch.cat([frames.mean(1), frames.std(1, correction=0)], dim=1)
    assert numbers == pytest.approx(expected.numpy(), abs=1e-6)
    assert svm._numbers(Batch(frames, None, torch.tensor([0]))) == pytest.approx(expected.numpy(), abs=1e-6)


def test_long_sequences_are_averaged_to_a_bounded_number_of_values():
    svm = Svm("values")
    svm.length = 10_000
    assert svm._numbers(Batch(torch.zeros(1, 10_000, 3), None, torch.tensor([0]))).shape == (1, 4095)


def slow_probability(sequences, context, token, vocabulary, order):
    """Witten-Bell interpolation as its equation is written."""
    if order == 0:
        return 1 / vocabulary
    history = context[len(context) - order + 1 :] if order > 1 else ()
    lower = slow_probability(sequences, context, token, vocabulary, order - 1)
    if len(history) < order - 1:
        return lower
    after = Counter(
        row[at]
        for row in sequences
        for at in range(max(1, order - 1), len(row))
        if tuple(row[at - order + 1 : at]) == tuple(history)
    )
    if not after:
        return lower
    return (after[token] + len(after) * lower) / (after.total() + len(after))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_ngram_probabilities_equal_the_equation_of_witten_and_bell(order):
    vocabulary = 4
    generator = torch.Generator().manual_seed(order)
    rows = torch.randint(vocabulary, (6, 9), generator=generator)
    padding = torch.zeros(6, 8, dtype=torch.bool)
    padding[0, 4:] = True
    train = Batch(rows[:, :-1], padding, rows[:, 1:].masked_fill(padding, IGNORE_INDEX))
    spec = TaskSpec(length=8, vocabulary=vocabulary, classes=vocabulary, per_token=True, causal=True)
    baseline = NGram(order)
    baseline.fit(Given(spec, train=train))
    sequences = [rows[0, :5].tolist(), *rows[1:].tolist()]
    unseen = torch.randint(vocabulary, (3, 8), generator=generator)
    probabilities = baseline(Batch(unseen, None, unseen)).exp()
    assert probabilities.sum(-1).flatten().tolist() == pytest.approx([1.0] * 24, abs=1e-5)
    for row in range(3):
        for at in range(8):
            context = tuple(unseen[row, : at + 1].tolist())
            expected = [slow_probability(sequences, context, token, vocabulary, order) for token in range(vocabulary)]
            assert probabilities[row, at].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_ngram_model_is_scored_in_bits_per_byte_and_generates(tmp_path):
    text_folder(tmp_path, ["abcd" * 40 for _ in range(12)])
    task = Text(folder=str(tmp_path), predict="next_byte", length=32, generate=8, train=8, validation=2, test=2)
    (result,) = evaluate_baselines(task)
    assert result.name == "interpolated 5-gram"
    assert 0 < result.metrics["bits_per_byte"] < 0.5
    baseline = NGram()
    baseline.fit(task)
    prompt = torch.tensor([list(b"cdab"), list(b"dabc")])
    assert [bytes(row.tolist()) for row in baseline.generate(prompt, 5)] == [b"cdabc", b"dabcd"]


def test_an_ngram_model_refuses_labels_that_are_not_the_next_tokens():
    batch = Batch(torch.tensor([[0, 1]]), None, torch.tensor([[0, 1]]))
    spec = TaskSpec(length=2, vocabulary=2, classes=2, per_token=True, causal=True)
    with pytest.raises(ValueError, match="not the next tokens"):
        NGram().fit(Given(spec, train=batch))


@pytest.mark.parametrize("tokens", ["words", "bytes", "bpe"])
def test_translation_baselines_copy_the_source_and_find_the_nearest_pair(tmp_path, tokens):
    pairs = {"train": [("a b c", "A b C"), ("d e", "D E")], "valid": [("a b c", "A b C")], "test": [("d", "d")]}
    for split, both in pairs.items():
        for side, ending in enumerate(("de", "en")):
            (tmp_path / f"{split}.{ending}").write_text("".join(f"{pair[side]}\n" for pair in both))
    task = Translation(folder=str(tmp_path), source="de", target="en", tokens=tokens)
    copied, nearest = task.baselines()
    assert isinstance(copied, CopiedSource)
    assert isinstance(nearest, NearestPair)
    batch = task.data("validation")
    for baseline, expected in ((copied, "a b c"), (nearest, "A b C")):
        baseline.fit(task)
        assert [text for text, _ in task.eval_step(baseline, batch)] == [expected]
    assert nearest.evaluate(task, "validation")["exact"] == 1.0


@pytest.mark.slow
def test_the_baseline_of_several_tasks_is_the_best_of_each_scored_by_their_normalized_mean():
    tasks = {"digits": Digits(), "words": Recall(train=20, validation=20, test=20)}
    (result,) = evaluate_baselines(Multitask(tasks=tasks))
    progress = []
    for name, task in tasks.items():
        best = max(evaluate_baselines(task), key=lambda each: each.metrics["accuracy"])
        assert result.test_metrics[f"{name}_accuracy"] == pytest.approx(best.test_metrics["accuracy"])
        progress.append((best.metrics["accuracy"] - task.chance) / (1 - task.chance))
    assert result.metrics["progress"] == pytest.approx(sum(progress) / 2)


def test_the_nearest_recording_gives_its_whole_transcript_also_of_repeated_letters():
    task = Asr(train=30, validation=10, test=10)
    (baseline,) = task.baselines()
    one, other = task.alphabet[1:3]
    train = task.data("train")
    train.labels[:2] = task.encode([f"{one}{one}{other} {other}", f"{other}{one}{one}{one}"], train.labels.shape[1])
    task._loaded["validation"] = train
    baseline.fit(task)
    assert baseline.evaluate(task, "validation")["character_error_rate"] == 0.0
    near = task.data("validation")
    near = near._replace(inputs=near.inputs + 0.05 * torch.rand(near.inputs.shape), padding=near.padding)
    assert task.eval_step(baseline, near).word_edits == 0
    short = near.select(torch.tensor([0]))
    cut = Batch(short.inputs[:, :3], None, short.labels[:, :3])
    assert baseline(cut).shape == (1, 3, task.spec.classes), "what does not fit is cut off"


@pytest.mark.parametrize(
    ("task", "names"),
    [
        pytest.param(Recall(train=2, validation=2, test=2), ["majority class"], id="per token"),
        pytest.param(Digits(), ["majority class", "RBF SVM on all values"], id="gray levels"),
        pytest.param(Tts(train=2, validation=2, test=2), ["mean frame"], id="regression"),
        pytest.param(Asr(train=2, validation=2, test=2), ["nearest training recording"], id="transcription"),
        pytest.param(
            Multitask(tasks={"a": Digits(), "b": Recall(train=2, validation=2, test=2)}),
            ["best baseline of each task"],
            id="multitask",
        ),
        pytest.param(
            Patches(train=99),
            ["majority class", "RBF SVM on all values", "RBF SVM on means and deviations"],
            id="frames",
        ),
    ],
)
def test_results_have_the_metrics_of_both_splits_and_times(task, names):
    results = evaluate_baselines(task)
    assert [result.name for result in results] == names
    for result in results:
        names = set(METRICS) if task.metric in METRICS else {task.metric}
        assert result.metrics.keys() == result.test_metrics.keys() - {margin_name(task.metric)} >= names
        assert all(map(math.isfinite, (*result.metrics.values(), *result.test_metrics.values())))
        assert result.latency_ms > 0
        assert result.fit_s >= 0


@pytest.mark.slow
def test_results_are_the_same_twice():
    first, second = (evaluate_baselines(Patches(train=300)) for _ in range(2))
    assert [each.metrics for each in first] == [each.metrics for each in second]
    assert [each.test_metrics for each in first] == [each.test_metrics for each in second]


def test_a_baseline_that_fails_is_left_out_with_a_warning(caplog):
    class Failing(Majority):
        name = "failing"

        def fit(self, task: Task) -> None:
            raise ArithmeticError("no such luck")

    class WithFailing(Digits):
        def baselines(self):
            return (Failing(), Majority())

    results = evaluate_baselines(WithFailing())
    assert [result.name for result in results] == ["majority class"]
    assert "baseline failing failed: ArithmeticError: no such luck" in caplog.text


def test_one_hot_logits_predict_their_labels():
    labels = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(one_hot_logits(labels, 3).argmax(-1), labels)


def test_subsampled_training_rows_leave_out_rows_without_a_label():
    from spaces.baselines import training_rows

    labels = torch.tensor([0, IGNORE_INDEX, 1, 1, 0])
    batch = Batch(torch.arange(5)[:, None], None, labels)
    task = Given(TaskSpec(length=1, vocabulary=5, classes=2, per_token=False), train=batch)
    assert training_rows(task).inputs.flatten().tolist() == [0, 2, 3, 4]
    few = training_rows(task, 2).inputs.flatten().tolist()
    assert len(few) == 2
    assert few == sorted(few)
    assert set(few) <= {0, 2, 3, 4}
