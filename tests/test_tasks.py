"""Every task against the contract; then the labels of some, recomputed by slow code from the inputs only."""

from __future__ import annotations

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
import yaml
from audio_files import write_recordings, write_transcribed
from hydra import compose, initialize_config_dir
from image_files import write_arrays, write_cifar10, write_images, write_pathfinder
from omegaconf import OmegaConf
from text_tables import REVIEWS, save_dataset, write_table
from tiny_task import FirstToken
from torch.utils._pytree import tree_leaves

from search.budget.scale import register_resolvers
from spaces.instantiate import instantiate
from spaces.tasks import BOS, EOS, IGNORE_INDEX, Batch, Split, Task, TaskSpec
from spaces.tasks.arrays import Arrays
from spaces.tasks.asr import Asr
from spaces.tasks.asr_recordings import AsrRecordings
from spaces.tasks.cifar10 import Cifar10
from spaces.tasks.copying import Copying
from spaces.tasks.digits import Digits
from spaces.tasks.huggingface import HuggingFace
from spaces.tasks.images import Images
from spaces.tasks.listops import ListOps
from spaces.tasks.long_recall import LongRecall
from spaces.tasks.mqar import MQAR
from spaces.tasks.patches import Patches
from spaces.tasks.pathfinder import Pathfinder
from spaces.tasks.recall import Recall
from spaces.tasks.recordings import Recordings
from spaces.tasks.selective_copying import SelectiveCopying
from spaces.tasks.sources.checks import check_data
from spaces.tasks.speech import Speech
from spaces.tasks.table import Table
from spaces.tasks.text import Text
from spaces.tasks.translation import Translation
from spaces.tasks.tts import Tts
from spaces.tasks.writing import Writing

ROOT = Path(__file__).parents[1]
SPLITS: tuple[Split, ...] = get_args(Split)


def write_library(folder: Path) -> Path:
    """Three subfolders of 13 distinct files, from 2 bytes to several windows of 16."""
    for letter in "abc":
        for number in range(13):
            path = folder / letter / f"chapter{number % 3}" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes((ord(letter) * 7 + number * 11 + at) % 256 for at in range(2 + 9 * number)))
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path)


def saved(folder: Path, **columns: str) -> str:
    return str(save_dataset(folder, [*REVIEWS] * 3, **columns))


TASKS: dict[str, Callable[[Path], Task]] = {
    "recall": lambda _: Recall(train=40),
    "long_recall": lambda _: LongRecall(train=4),
    "recall, short and odd": lambda _: Recall(length=67, pairs=4, repeats=2, keys=4, answers=3, train=30),
    "recall, one pair": lambda _: Recall(length=16, pairs=1, repeats=1, keys=1, answers=2, noise=1, near=1.0),
    "text": lambda folder: Text(folder=str(folder), length=16),
    "writing": lambda folder: Writing(folder=str(folder), length=16, generate=4),
    "text, next byte": lambda folder: Text(folder=str(folder), length=16, predict="next_byte"),
    "listops": lambda _: ListOps(train=60, validation=20, test=20),
    "copying": lambda _: Copying(train=40),
    "selective copying": lambda _: SelectiveCopying(train=40),
    "mqar": lambda _: MQAR(train=40),
    "digits": lambda _: Digits(),
    "patches": lambda _: Patches(train=50),
    "patches, few and large": lambda _: Patches(side=9, patch=3, train=20),
    "arrays": lambda folder: Arrays(file=str(write_arrays(folder / "a.npz"))),
    "arrays, padded and per token": lambda folder: Arrays(
        file=str(write_arrays(folder / "a.npz", per_token=True)), padding="padding", causal=True
    ),
    "cifar10": lambda folder: Cifar10(folder=str(write_cifar10(folder / "cifar"))),
    "cifar10, gray pixels": lambda folder: Cifar10(
        folder=str(write_cifar10(folder / "cifar")), patch=None, channels="gray"
    ),
    "pathfinder": lambda folder: Pathfinder(folder=str(write_pathfinder(folder / "pathfinder")), side=6),
    "images": lambda folder: Images(folder=str(write_images(folder / "pictures")), side=8),
    "images, gray pixels": lambda folder: Images(
        folder=str(write_images(folder / "pictures")), side=5, patch=None, channels="gray"
    ),
    "recordings": lambda folder: Recordings(folder=str(write_recordings(folder / "wav")), seconds=0.08),
    "huggingface": lambda folder: HuggingFace(dataset=saved(folder / "saved"), text="review", label="stars"),
    "table": lambda folder: Table(
        file=str(write_table(folder / "a.csv", [*REVIEWS] * 3)), text="review", label="stars"
    ),
    "translation": lambda _: Translation(train=40, validation=20, test=20),
    "asr": lambda _: Asr(train=20, validation=10, test=10),
    "asr_recordings": lambda folder: AsrRecordings(table=str(write_transcribed(folder / "said")), seconds=0.8),
    "tts": lambda _: Tts(train=20, validation=10, test=10),
    "speech": lambda _: Speech(train=20, validation=10, test=10),
    "speech, short and odd": lambda _: Speech(length=37, bands=8, sounds=5, keys=1, partners=3, pauses=1, voices=1),
}


# Without a comma: the representative row of a task, which is tested in the quick suite too.
ROWS = [pytest.param(name, marks=[pytest.mark.slow] if "," in name else []) for name in TASKS]


@pytest.fixture(scope="module", params=ROWS)
def tasks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Task]:
    """A task, constructed twice."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    return TASKS[request.param](folder), TASKS[request.param](folder)


@pytest.fixture(scope="module")
def task(tasks: tuple[Task, Task]) -> Task:
    return tasks[0]


def constant_network(logits: torch.Tensor) -> Callable[[Batch], torch.Tensor]:
    """A network with constant logits."""
    return lambda _: logits


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(tree_leaves(tuple(a)), tree_leaves(tuple(b)), strict=True)
    return all(x is y is None or torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("split", SPLITS)
def test_examples_have_the_promised_shapes_and_ranges(task: Task, split: Split) -> None:
    inputs, padding, labels, decoder_input_ids, *_ = task.data(split)
    tokens = (len(inputs), task.spec.length)
    answered = (len(inputs), task.spec.answer_length or task.spec.length)
    numbers = (task.spec.classes,) if labels.is_floating_point() else ()
    assert labels.shape == (*(answered if task.spec.per_token else answered[:1]), *numbers)
    assert (decoder_input_ids is None) == (task.spec.answer_length is None)
    assert decoder_input_ids is None or (decoder_input_ids.shape == answered and (decoder_input_ids[:, 0] == BOS).all())
    assert labels.dtype == (torch.float32 if numbers else torch.int64)
    if task.spec.features is None:
        assert (inputs.shape, inputs.dtype) == (tokens, torch.int64)
        assert 0 <= int(inputs.min()) <= int(inputs.max()) < task.spec.vocabulary
    else:
        assert (inputs.shape, inputs.dtype) == ((*tokens, task.spec.features), torch.float32)
        assert inputs.isfinite().all()
    labelled = labels != (0.0 if numbers else IGNORE_INDEX)
    assert labels.isfinite().all()
    assert numbers or ((labels >= 0) & (labels < task.spec.classes))[labelled].all()
    assert labelled.reshape(len(labels), -1).any(1).all()
    if padding is not None:
        assert padding.dtype == torch.bool
        assert padding.shape == tokens
        assert padding.any()
        assert not padding[:, 0].any()
        assert (padding[:, 1:] >= padding[:, :-1]).all(), "padding is at the end"
        assert (inputs[padding] == 0).all()
        assert labels.shape[:2] != padding.shape or decoder_input_ids is not None or not labelled[padding].any()


@pytest.mark.parametrize("split", SPLITS)
def test_equal_settings_give_equal_examples_without_shared_state(tasks: tuple[Task, Task], split: Split) -> None:
    task, other = tasks
    torch.manual_seed(1)
    first = task.data(split)
    torch.manual_seed(2)
    second = other.data(split)
    assert same(first, second)
    assert task.data(split) is first
    assert second.inputs is not first.inputs
    assert second.labels is not first.labels


def test_examples_and_batches_do_not_use_the_global_generator(task: Task) -> None:
    before = torch.get_rng_state()
    task.examples("train")
    list(task.batches("train", 7, shuffle=3))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shuffle", [None, 0])
def test_batches_contain_every_example_once(task: Task, shuffle: int | None) -> None:
    rows = [row for batch in task.batches("validation", 7, shuffle=shuffle) for row in as_rows(batch)]
    expected = as_rows(task.data("validation"))
    assert Counter(rows) == Counter(expected)
    assert (rows == expected) == (shuffle is None or len(set(rows)) == 1)
    assert max(len(batch.inputs) for batch in task.batches("validation", 7, shuffle=shuffle)) <= 7


def test_the_shuffle_seed_determines_the_order(task: Task) -> None:
    once, again, other = (list(task.batches("train", 3, shuffle=seed)) for seed in (5, 5, 6))
    assert all(map(same, once, again))
    assert not all(map(same, once, other))


def as_rows(batch: Batch) -> list[tuple[bytes, bytes]]:
    """The bytes of each example and of its label, without padding."""
    rows = []
    for at, row in enumerate(batch.inputs):
        kept = slice(None) if batch.padding is None else ~batch.padding[at]
        label = batch.labels[at]
        if batch.decoder_input_ids is not None:
            label = label[label != IGNORE_INDEX]
        elif label.shape[:1] == row.shape[:1]:
            label = label[kept]
        rows.append((row[kept].numpy().tobytes(), label.numpy().tobytes()))
    return rows


class Lengths(FirstToken):
    """Rows of 1 to 40 tokens, which are all the row's number."""

    def examples(self, split: Split) -> Batch:
        lengths = 1 + torch.randperm(40 * 3, generator=torch.Generator().manual_seed(0)) % 40
        padding = torch.arange(40) >= lengths[:, None]
        rows = torch.arange(len(lengths))[:, None].expand(-1, 40)
        return Batch(rows.masked_fill(padding, 0), padding, rows.masked_fill(padding, IGNORE_INDEX))


def test_batches_have_examples_of_similar_length_and_no_superfluous_padding() -> None:
    ordered, shuffled = (list(Lengths().batches("train", 8, shuffle=seed)) for seed in (None, 1))
    for batches in (ordered, shuffled):
        assert all(batch.padding is None or (~batch.padding).any(0).all() for batch in batches)
        assert all(batch.labels.shape == batch.inputs.shape for batch in batches)
    work = [sum(batch.inputs.numel() for batch in batches) for batches in (ordered, shuffled)]
    least = int((~Lengths().examples("train").padding).sum())
    assert work[1] < 1.15 * least < 1.5 * least < work[0]
    lengths = [batch.inputs.shape[1] for batch in shuffled]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True)), "short and long ones must alternate"


def test_target_sequences_are_trimmed_to_the_longest_one() -> None:
    labels = torch.tensor([[5, EOS, IGNORE_INDEX, IGNORE_INDEX], [7, 6, EOS, IGNORE_INDEX]])
    batch = Batch(torch.ones(2, 4, dtype=torch.int64), None, labels, torch.full((2, 4), BOS)).trim_padding()
    assert (batch.labels.tolist(), batch.decoder_input_ids.shape) == (labels[:, :3].tolist(), (2, 3))
    assert batch.inputs.shape == (2, 4)


@pytest.mark.parametrize(
    "task",
    [Recall(train=48, validation=48, test=48), Speech(train=48, validation=48, test=48), Digits(), Copying(), MQAR()],
)
def test_no_example_is_in_two_splits(task: Task) -> None:
    splits = [[tuple(row) for row in task.examples(split).inputs.flatten(1).tolist()] for split in SPLITS]
    assert len({row for split in splits for row in split}) == sum(map(len, splits))


@pytest.mark.parametrize("build", [Asr, Recall, Speech, Digits, ListOps, Copying, SelectiveCopying, MQAR, Tts])
def test_another_seed_generates_other_examples(build: Callable[..., Task]) -> None:
    sizes = {} if build is Digits else {"train": 10, "validation": 10, "test": 10}
    assert not same(build(seed=0, **sizes).examples("train"), build(seed=1, **sizes).examples("train"))


def test_accuracy_counts_labelled_positions_only() -> None:
    task = Recall()
    labels = task.examples("validation").labels[:2]
    logits = torch.nn.functional.one_hot(labels.clamp(min=0), task.spec.classes).float()
    labelled = int((labels != IGNORE_INDEX).sum())
    batch = Batch(labels, None, labels)
    right, wrong = (task.eval_step(constant_network(each), batch) for each in (logits, -logits))
    assert task.compute_objective([right]) == 1
    assert task.compute_metrics([right, wrong, right])["accuracy"] == pytest.approx(2 / 3)
    assert task.compute_metrics([(1, 3), (labelled, labelled)]) == {"accuracy": (1 + labelled) / (3 + labelled)}
    assert task.loss(100 * logits, batch).item() == pytest.approx(0, abs=1e-6)


# Recall -----------------------------------------------------------------------------------------------------------


RECALLS = [
    Recall(),
    Recall(near=0.0, seed=3),
    Recall(near=1.0, seed=4),
    Recall(length=67, pairs=4, repeats=2, keys=5, answers=3, noise=2),
    Recall(length=16, pairs=1, repeats=2, keys=1, answers=2, noise=1),
]


@pytest.mark.parametrize("task", RECALLS)
def test_recall_labels_follow_from_the_inputs(task: Recall) -> None:
    """Replay every row token by token, with a dictionary and a tally."""
    inputs, _, labels, *_ = task.examples("validation")
    for row, labelled in zip(inputs.tolist(), labels.tolist(), strict=True):
        facts: dict[int, set[int]] = {}
        markers: Counter[int] = Counter()
        for token, following in zip(row, [*row[1:], -1], strict=True):
            kind = kind_of(task, token)
            if kind == "key" and kind_of(task, following) == "value":
                facts.setdefault(token, set()).add(following - task.first_value)
            if kind == "marker":
                markers[token - task.first_marker] += 1
        assert all(len(values) == 1 for values in facts.values()), "a key has one value in a row"
        for token, answer in zip(row, labelled, strict=True):
            if kind_of(task, token) == "key":
                assert {answer} == facts[token]
            elif kind_of(task, token) == "question":
                (topic, most), *others = markers.most_common(2)
                assert answer == topic
                assert all(most > count for _, count in others)
            else:
                assert answer == IGNORE_INDEX


def kind_of(task: Recall, token: int) -> str:
    ends = {
        "noise": task.first_key,
        "key": task.first_value,
        "value": task.first_marker,
        "marker": task.topic_query,
        "question": task.spec.vocabulary,
    }
    return next((kind for kind, end in ends.items() if 0 <= token < end), "nothing")


@pytest.mark.parametrize("task", RECALLS)
def test_recall_rows_have_the_configured_number_of_slots_of_each_kind(task: Recall) -> None:
    for row in task.examples("validation").inputs.tolist():
        kinds = [kind_of(task, token) for token in row]
        facts = Counter(key for key, kind in zip(row, kinds[1:], strict=False) if kind == "value")
        assert set(facts.values()) == {task.repeats}
        assert (task.pairs + 1) // 2 <= len(facts) <= task.pairs
        slots = len(row) // 2
        assert kinds.count("key") - kinds.count("value") == slots * 3 // 10
        assert kinds.count("marker") == slots // 5
        assert kinds.count("question") == slots // 8
        assert set(kinds[1::2]) <= {"noise", "value"}


@pytest.mark.parametrize("near", [0.0, 0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_configured_share_of_queries_is_about_the_nearest_fact(near: float) -> None:
    task = Recall(near=near, validation=20)
    nearest, other, by_accident = 0, 0, 0.0
    for row in task.examples("validation").inputs.tolist():
        values = [at + 1 for at in range(511) if kind_of(task, row[at + 1]) == "value"]
        facts = [at - 1 for at in values]
        for at in range(512):
            if kind_of(task, row[at]) == "key" and at not in facts:
                closest = min(abs(at - fact) for fact in facts)
                if row[at] in {row[fact] for fact in facts if abs(at - fact) == closest}:
                    nearest += 1
                else:
                    other += 1
                by_accident += (1 - near) / len({row[fact] for fact in facts})
    total = nearest + other
    expected = near + by_accident / total
    # Ties of distance count as near above and add up to another 4 percent.
    assert expected - 0.03 <= nearest / total <= expected + 0.07
    assert near < 1 or nearest == total


def test_a_constant_prediction_has_chance_accuracy_in_recall() -> None:
    task = Recall(train=1000)
    labels = task.examples("train").labels
    shares = (
        torch.bincount(labels[labels != IGNORE_INDEX], minlength=task.spec.classes) / (labels != IGNORE_INDEX).sum()
    )
    assert shares.tolist() == pytest.approx([task.chance] * 8, abs=0.01)


# Text -------------------------------------------------------------------------------------------------------------


def test_text_splits_are_disjoint_and_cover_every_file(library: Path) -> None:
    task = Text(folder=str(library), length=16, train=10**6, validation=10**6, test=10**6)
    names = [{window.file.name for window in task.windows[split]} for split in SPLITS]
    assert sum(map(len, names)) == len(set.union(*names)) == 39
    assert [len(split) for split in names] == [33, 3, 3]


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("length", [16, 1000])
def test_one_or_two_text_files_are_split_into_consecutive_parts(tmp_path: Path, files: int, length: int) -> None:
    contents = {f"{number}.txt": Random(number).randbytes(997 + number) for number in range(files)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    limits: dict[str, Any] = dict.fromkeys(SPLITS, 10**6)
    task = Text(folder=str(tmp_path), length=length, predict="next_byte", **limits)
    for name, content in contents.items():
        read = dict.fromkeys(SPLITS, b"")
        for split in SPLITS:
            for window, (_, found) in zip(task.windows[split], task.rows(split), strict=True):
                if window.file.name == name:
                    read[split] += found[: length if len(found) > length else None]
        assert b"".join(read.values()) == content
        assert list(map(len, read.values())) == pytest.approx([0.8 * len(content), *[0.1 * len(content)] * 2], abs=1)


def test_text_splits_depend_on_relative_file_names_only(
    library: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moved = tmp_path_factory.mktemp("elsewhere") / "texts"
    before = Text(folder=str(library), length=16).windows
    library.rename(moved)
    assert Text(folder=str(moved), length=16).windows == before


@pytest.mark.parametrize("predict", ["label", "next_byte"])
@pytest.mark.parametrize("length", [16, *(pytest.param(length, marks=pytest.mark.slow) for length in (2, 1000))])
def test_text_windows_reconstruct_every_file(library: Path, predict: Any, length: int) -> None:
    task = Text(folder=str(library), length=length, predict=predict, train=10**6, validation=10**6, test=10**6)
    for split in SPLITS:
        inputs, padding, labels, *_ = task.examples(split)
        assert len(inputs) == len(task.windows[split])
        rebuilt: dict[str, bytes] = {}
        for row, window in enumerate(task.windows[split]):
            real = inputs[row] if padding is None else inputs[row][~padding[row]]
            assert window.start == len(rebuilt.get(window.file.name, b""))
            rebuilt[window.file.name] = rebuilt.get(window.file.name, b"") + bytes(real.tolist())
            if predict == "label":
                assert window.file.name.split("/")[0] == task.subfolders[int(labels[row])]
                continue
            content = (library / window.file.name).read_bytes()
            following = content[window.start + 1 : window.start + 1 + length]
            assert bytes(labels[row][labels[row] != IGNORE_INDEX].tolist()) == following
            assert (labels[row, : len(following)] != IGNORE_INDEX).all()
        for name, content_read in rebuilt.items():
            content = (library / name).read_bytes()
            assert content_read in (content, content[:-1] if predict == "next_byte" else content)


def test_text_keeps_the_largest_subfolders_with_equally_many_windows_each(library: Path) -> None:
    (library / "b" / "big.txt").write_bytes(b"x" * 10_000)
    (library / "notes").mkdir()
    (library / "notes" / "only.txt").write_bytes(b"y" * 50_000)  # one file cannot be split into three
    (library / "loose.txt").write_bytes(b"z" * 50_000)
    task = Text(folder=str(library), classes=2, length=16, train=11, validation=5, test=7)
    assert task.subfolders == ("b", "a")
    assert Counter(task.examples("train").labels.tolist()) == {0: 5, 1: 5}
    assert task.chance == 0.5


def test_chance_is_the_share_of_the_largest_subfolder_in_validation(library: Path) -> None:
    for number in range(13):
        (library / "c" / f"more{number}.txt").write_bytes(b"x" * 400)
    task = Text(folder=str(library), length=16, validation=300)
    counts = torch.bincount(task.examples("validation").labels)
    assert task.chance == pytest.approx(counts.max().item() / counts.sum().item())
    assert task.chance > 1 / 3


def test_windows_are_evenly_spaced_over_the_files(library: Path) -> None:
    (library / "a" / "0.txt").write_bytes(b"x" * 16 * 1000)
    few = Text(folder=str(library), predict="next_byte", length=16, train=50).windows["train"]
    every = Text(folder=str(library), predict="next_byte", length=16, train=10**6).windows["train"]
    assert len(few) == len(set(few)) == 50
    assert set(few) <= set(every)
    assert every.index(few[-1]) >= len(every) * 0.98 - 1


def test_bits_per_byte_of_a_uniform_distribution_is_chance(library: Path) -> None:
    task = Text(folder=str(library), predict="next_byte", length=16)
    labels = task.examples("validation").labels
    batch, nothing = Batch(labels, None, labels), torch.zeros(*labels.shape, 256)
    bits, count = task.eval_step(constant_network(nothing), batch)
    assert bits / count == pytest.approx(task.chance)
    assert task.loss(nothing, batch).item() == pytest.approx(task.chance * math.log(2))
    certain = 1000 * torch.nn.functional.one_hot(labels.clamp(min=0), 256).float()
    assert task.eval_step(constant_network(certain), batch) == (task.best, count)
    assert (task.metric, task.direction, task.spec.causal) == ("bits_per_byte", "minimize", True)


def test_inference_is_generation_if_generate_is_set(library: Path) -> None:
    task = Text(folder=str(library), predict="next_byte", length=16, generate=6)

    class Writer(torch.nn.Module):
        def generate(self, prompt: torch.Tensor, tokens: int) -> torch.Tensor:
            return torch.cat([prompt, torch.zeros(len(prompt), tokens)], dim=1)

    batch = task.sample(2)
    assert torch.equal(task.predict(Writer(), batch), F.pad(batch.inputs[:, :10], (0, 6)).float())
    with pytest.raises(ValueError, match="generate=6: it needs a model that can generate"):
        task.predict(torch.nn.Identity(), batch)
    assert Text(folder=str(library), length=16).predict(torch.nn.Identity(), batch) is batch


def test_unreadable_text_files_are_skipped_with_a_warning(library: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = Text(folder=str(library), length=16, train=10**6)
    gone, *_, shrunk = dict.fromkeys(window.file.name for window in task.windows["train"] if window.file.size > 20)
    (library / gone).unlink()
    (library / shrunk).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        inputs = task.examples("train").inputs
    assert [sum(name in message for message in caplog.messages) for name in (gone, shrunk)] == [1, 1]
    assert len(inputs) == sum(window.file.name not in (gone, shrunk) for window in task.windows["train"])
    for window in task.windows["validation"]:
        (library / window.file.name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="none of the validation files can be read"):
        task.examples("validation")


def test_installed_packages_and_hidden_folders_are_skipped(library: Path) -> None:
    before = Text(folder=str(library), length=16).windows
    for name in ("site-packages", "a/__pycache__", ".git", "b/.cache"):
        (library / name).mkdir()
        for number in range(4):
            (library / name / f"{number}.txt").write_bytes(b"x" * 9999)
    assert Text(folder=str(library), length=16).windows == before


def test_the_default_text_is_the_standard_library() -> None:
    task = Text(train=16, validation=8, test=8)
    assert task.folder == Path(os.__file__).parent
    assert len(task.subfolders) == task.spec.classes == 8
    assert task.chance == 1 / 8
    first = task.windows["train"][0]
    content = (task.folder / first.file.name).read_bytes()[: task.spec.length]
    assert bytes(task.examples("train").inputs[0, : len(content)].tolist()) == content


# Digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_all_images_of_the_data_set_with_their_labels() -> None:
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    expected = {tuple(map(int, image)): int(digit) for image, digit in zip(pixels, digits, strict=True)}
    found: dict[tuple[int, ...], int] = {}
    for split in SPLITS:
        inputs, _, labels, *_ = Digits().examples(split)
        assert len(set(labels.tolist())) == 10
        found |= {tuple(image): digit for image, digit in zip(inputs.tolist(), labels.tolist(), strict=True)}
    assert found == expected


# Patches ----------------------------------------------------------------------------------------------------------


def test_patches_reconstruct_the_upsampled_image() -> None:
    task = Patches(side=12, patch=4)
    inputs, _, labels, *_ = task.examples("test")
    pixels, _, digits, *_ = task.digits.examples("test")
    assert torch.equal(labels, digits)
    images = [F.interpolate(p.view(1, 1, 8, 8).float(), size=12, mode="bilinear")[0, 0] / 8 - 1 for p in pixels[:5]]
    for image, row in zip(images, inputs, strict=False):
        for at, patch in enumerate(row):
            top, left = 4 * (at // 3), 4 * (at % 3)
            torch.testing.assert_close(patch.view(4, 4), image[top : top + 4, left : left + 4])


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (Recall, {"length": 15}, "length=15: it must be a whole number from 16"),
        (Recall, {"length": 64.0}, r"length=64\.0: it must be a whole number"),
        (Recall, {"length": True}, "length=True: it must be a whole number"),
        (Recall, {"length": 256}, r"pairs=16, repeats=4: with length 256 their product must be 1\.\.32"),
        (Recall, {"pairs": 0}, "pairs=0: it must be a whole number from 1"),
        (Recall, {"repeats": 0}, "repeats=0"),
        (Recall, {"keys": 15}, "keys=15: it must be a whole number from 16"),
        (Recall, {"answers": 1}, "answers=1: it must be a whole number from 2"),
        (Recall, {"noise": 0}, "noise=0"),
        (Recall, {"near": 1.5}, r"near=1\.5: it must be 0\.\.1"),
        (Recall, {"near": math.nan}, r"near=nan: it must be 0\.\.1"),
        (Recall, {"train": 0}, "train=0"),
        (Recall, {"validation": 0}, "validation=0"),
        (Recall, {"test": -1}, "test=-1"),
        (Recall, {"seed": -1}, "seed=-1: it must be a whole number from 0"),
        (Speech, {"length": 95}, "length=95: it must be a whole number from 96"),
        (Speech, {"sounds": 14}, "sounds=14: it must be a whole number from 15"),
        (Speech, {"bands": 7}, "bands=7: it must be a whole number from 8"),
        (Speech, {"keys": 0}, "keys=0"),
        (Speech, {"noise": -0.1}, r"noise=-0\.1: it must be at least 0"),
        (Speech, {"shift": math.nan}, "shift=nan: it must be at least 0"),
        (Asr, {"length": 79}, "length=79: it must be a whole number from 80"),
        (Asr, {"letters": 27}, "letters=27: it must be a whole number from 2 to 26"),
        (Asr, {"noise": -1}, "noise=-1: it must be at least 0"),
        (AsrRecordings, {}, "table=None: name a file that lists audio files and their transcripts"),
        (AsrRecordings, {"table": "nowhere.tsv"}, "table='nowhere.tsv': no such file"),
        (AsrRecordings, {"seconds": 0}, r"seconds=0: it must be at least 0\.025"),
        (Tts, {"characters": 9}, "characters=9: it must be a whole number from 10"),
        (Tts, {"letters": 1}, "letters=1: it must be a whole number from 2 to 26"),
        (Patches, {"side": 7}, "side=7: it must be a whole number from 8"),
        (Patches, {"patch": 25}, "patch=25: it must fit into the image, 24 by 24 pixels"),
        (Patches, {"train": 1078}, r"train=1078: it must be 1\.\.1077"),
        (Arrays, {}, r"file=None: name a file written by numpy\.savez\(file, inputs=\.\.\., labels=\.\.\.\)"),
        (Arrays, {"file": "nowhere.npz"}, r"file='nowhere\.npz': no such file"),
        (Arrays, {"seed": -1}, "seed=-1: it must be a whole number from 0"),
        (Arrays, {"train": 0}, "train=0: it must be a whole number from 1"),
        (Images, {}, "folder=None: name a folder that contains a folder of images for each class"),
        (Images, {"folder": "nowhere"}, "folder='nowhere': no such folder"),
        (Images, {"classes": 1}, "classes=1: it must be a whole number from 2"),
        (Recordings, {}, "folder=None: name a folder that contains a folder of audio files for each class"),
        (Recordings, {"folder": "nowhere"}, "folder='nowhere': no such folder"),
        (Recordings, {"seconds": 0.01}, r"seconds=0\.01: it must be at least 0\.025"),
        (Recordings, {"rate": 8e3}, r"rate=8000\.0: it must be a whole number from 1000"),
        (ListOps, {"min_length": -1}, "min_length=-1: it must be a whole number from 0"),
        (ListOps, {"max_length": 17}, "max_length=17: it must be a whole number from 18"),
        (ListOps, {"max_depth": 1}, "max_depth=1: it must be a whole number from 2"),
        (ListOps, {"max_args": 1}, "max_args=1: it must be a whole number from 2"),
        (ListOps, {"max_depth": 3, "max_args": 2}, "max_args=2: these expressions have at most 10 tokens"),
        (Digits, {"seed": "1"}, "seed='1': it must be a whole number from 0"),
        (Text, {"length": 1}, "length=1: it must be a whole number from 2"),
        (Text, {"classes": 1}, "classes=1: it must be a whole number from 2"),
        (Text, {"train": 2}, "train=2: with 3 classes it must be at least 3"),
        (Text, {"generate": 3}, "only next bytes can be generated; it needs predict=next_byte"),
        (Text, {"predict": "next_byte", "length": 8, "generate": 8}, "generate=8: with length=8 it must be 0..7"),
        (Text, {"predict": "word"}, "predict='word': it must be label or next_byte"),
        (Text, {"suffixes": ".txt"}, "suffixes='.txt': it must be a list of endings"),
        (Text, {"suffixes": ["txt"]}, "suffixes=.*: it must be a list of endings such as .txt"),
        (Text, {"suffixes": []}, "suffixes="),
        (Text, {"suffixes": [1]}, r"suffixes=\[1\]"),
        (Text, {"suffixes": [".tex", ".bib"]}, r"folder='.*': no files ending in \.tex, \.bib; see suffixes"),
        (Text, {"folder": "{}/nowhere"}, "folder='.*nowhere': no such folder"),
        (Text, {"folder": "{}/a/chapter0/0.txt"}, "folder='.*0.txt': no such folder"),
        (
            Text,
            {"folder": "{}/a/chapter0"},
            "predict=label needs two subfolders.*predict=next_byte needs no subfolders",
        ),
        (Text, {"folder": "{}/small", "predict": "next_byte"}, "8 bytes of text are too few for three splits"),
    ],
)
def test_invalid_settings_are_refused(
    library: Path, build: Callable[..., Task], settings: dict[str, Any], message: str
) -> None:
    (library / "small").mkdir()
    for name in ("one.txt", "two.txt", "empty.txt"):
        (library / "small" / name).write_bytes(b"" if name == "empty.txt" else b"text")
    if build is Text:
        settings = {"folder": "{}"} | settings
        settings["folder"] = settings["folder"].format(library)
    with pytest.raises(ValueError, match=message):
        build(**settings)


# Settings without a default.
REQUIRED: dict[str, dict[str, Callable[[Path], str]]] = {
    "huggingface": {"dataset": lambda folder: saved(folder / "saved", text="text", label="label")},
    "table": {"file": lambda folder: str(write_table(folder / "a.csv", text="text", label="label"))},
    "arrays": {"file": lambda folder: str(write_arrays(folder / "a.npz"))},
    "cifar10": {"folder": lambda folder: str(write_cifar10(folder))},
    "images": {"folder": lambda folder: str(write_images(folder))},
    "pathfinder": {"folder": lambda folder: str(write_pathfinder(folder))},
    "asr_recordings": {"table": lambda folder: str(write_transcribed(folder))},
    "recordings": {"folder": lambda folder: str(write_recordings(folder))},
}


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "task").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_of_every_task_constructs_it_with_its_defaults(path: Path, tmp_path: Path) -> None:
    what, command, *_ = path.read_text().splitlines()
    assert what.startswith("# ")
    assert command.startswith("# Try it:  python -m search.run +space=")
    assert f"task={path.stem}" in command
    named = {name: build(tmp_path) for name, build in REQUIRED.get(path.stem, {}).items()}
    settings = yaml.safe_load(path.read_text()) | named
    assert settings["_target_"].startswith(f"spaces.tasks.{path.stem}.")
    if "defaults" in settings:  # composed of the YAML files of other tasks
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            composed = OmegaConf.to_container(compose("config", overrides=[f"task={path.stem}"]), resolve=True)
        assert isinstance(instantiate(Task, composed["task"], "task").spec, TaskSpec)
        return
    if "${scale:" in path.read_text():
        register_resolvers()
        settings = OmegaConf.to_container(OmegaConf.create({"task": settings, "scale": "tiny"}), resolve=True)["task"]
    task = instantiate(Task, settings, "task")
    assert isinstance(task, Task)
    assert task.spec == type(task)(**named).spec, "the YAML repeats the defaults"
    assert ("metric" in settings) == (task.metric == "accuracy"), "every classification offers other metrics"


def test_the_readme_lists_every_task() -> None:
    text = (ROOT / "spaces/tasks/README.md").read_text()
    tables = [block for block in text.split("\n\n") if block.startswith("| task |")]
    listed = [name for table in tables for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)]
    assert set(listed) == {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")}


def test_the_example_task_of_the_readme_works() -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "spaces/tasks/README.md").read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"__name__": "parity"}
    exec(code[1], names)
    task = names["Parity"](length=9)
    check_data(task)
    inputs, _, labels, *_ = task.data("train")
    assert (inputs.shape, inputs.dtype, labels.dtype) == ((800, 9), torch.int64, torch.int64)
    assert labels.tolist() == [row.count(1) % 2 for row in inputs.tolist()]


def test_modules_and_yaml_files_of_tasks_have_the_same_names() -> None:
    modules = {path.stem for path in (ROOT / "spaces" / "tasks").glob("*.py")} - {"__init__"}
    assert modules == {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")}
