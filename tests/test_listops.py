"""ListOps: values recomputed from the tokens, and the published statistics of the expressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import pytest

from spaces.tasks import SPLITS
from spaces.tasks.listops import ListOps

NAMES = [*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]"]
ARENA = {"min_length": 500, "max_length": 2000, "max_depth": 10, "max_args": 10, "train": 100, "validation": 200}
FEW = {"train": 200, "validation": 60, "test": 60}
SETTINGS = {
    "default": ListOps(**FEW),
    "deep": ListOps(min_length=30, max_length=120, max_depth=8, max_args=3, seed=1, **FEW),
    "wide": ListOps(min_length=2, max_length=12, max_depth=2, max_args=9, seed=2, **FEW),
    "arena": ListOps(**ARENA, test=1),
}
ROWS = [pytest.param(name, marks=[pytest.mark.slow] if name == "arena" else []) for name in SETTINGS]


@pytest.fixture(params=ROWS)
def task(request: pytest.FixtureRequest) -> ListOps:
    return SETTINGS[request.param]


@cache
def rows(task: ListOps) -> list[tuple[list[str], int]]:
    """The words of each example of all splits without its padding, and its label."""
    found = []
    for split in SPLITS:
        inputs, padding, labels, *_ = task.examples(split)
        for at, (row, label) in enumerate(zip(inputs, labels.tolist(), strict=True)):
            kept = row if padding is None else row[~padding[at]]
            found.append(([NAMES[token] for token in kept.tolist()], label))
    return found


def collapsed(words: Sequence[str]) -> list[tuple[str, list[int], int]]:
    """Every list as its operator, its arguments' values and its depth, by replacing an innermost one until none is."""
    lists, text = [], list(words)
    while "]" in text:
        end = text.index("]")
        start = max(at for at in range(end) if text[at].startswith("["))
        values = sorted(int(word) for word in text[start + 1 : end])
        depth = 1 + sum((word != "]") - (word == "]") for word in text[:start] if not word.isdigit())
        lists.append((text[start], values, depth))
        text[start : end + 1] = [str(value_of(text[start], values))]
    assert len(text) == 1, "an expression is one list"
    return lists


def value_of(operator: str, values: list[int]) -> int:
    middle = len(values) // 2
    if operator == "[MED":
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) // 2
    return {"[MIN": values[0], "[MAX": values[-1], "[SM": int(str(sum(values))[-1])}[operator]


def test_the_label_is_the_value_of_the_expression(task: ListOps) -> None:
    for words, label in rows(task):
        operator, values, _ = collapsed(words)[-1]
        assert label == value_of(operator, values)


def test_expressions_have_the_configured_length_depth_and_width(task: ListOps) -> None:
    found = rows(task)
    assert all(task.min_length < len(words) < task.max_length for words, _ in found)
    lists = [each for words, _ in found for each in collapsed(words)]
    assert max(depth for _, _, depth in lists) == task.max_depth - 1, "the deepest hold digits alone"
    assert {len(values) for _, values, _ in lists} == set(range(2, task.max_args + 1))
    assert {operator for operator, _, _ in lists} == {"[MIN", "[MAX", "[MED", "[SM"}


@pytest.mark.slow
def test_expressions_have_the_published_statistics() -> None:
    """Of 2000 drawn independently, 16.5 % had the value 0, 15.8 % 9, and 7.4 to 9.8 % each of the others."""
    found = rows(SETTINGS["arena"])
    shares = Counter(label for _, label in found)
    assert 0.25 < (shares[0] + shares[9]) / len(found) < 0.40
    assert all(shares[value] / len(found) < 0.16 for value in range(1, 9))
    assert sum(len(words) for words, _ in found) / len(found) == pytest.approx(1045, rel=0.08)


def test_expressions_are_distinct_even_if_few_are_possible() -> None:
    task = ListOps(min_length=3, max_length=5, max_depth=2, max_args=2, train=280, validation=50, test=60)
    found = [tuple(words) for words, _ in rows(task)]
    assert len(found) == len(set(found)) == 390, "of 400 there are"


def test_validation_and_test_do_not_depend_on_the_size_of_train() -> None:
    few, many = (ListOps(train=train).expressions for train in (10, 300))
    assert few["validation"] == many["validation"]
    assert few["test"] == many["test"]
    assert list(few["train"]) == list(many["train"])[:10]


def test_chance_is_the_share_of_the_most_frequent_value_in_validation(task: ListOps) -> None:
    labels = task.examples("validation").labels.tolist()
    assert task.chance == max(labels.count(value) for value in range(10)) / len(labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_length": 3, "max_length": 5, "max_depth": 2, "train": 400}, "max_length=5, train=400: after 39[78] exp"),
        (
            {"min_length": 300, "max_length": 302},
            "max_length=302, validation=1: after 0 expressions, 20000 draws in a row were",
        ),
    ],
)
def test_settings_whose_expressions_are_too_rare_are_refused(settings: dict[str, int], message: str) -> None:
    task = ListOps(**({"max_depth": 9, "max_args": 2, "validation": 1, "test": 1} | settings))
    with pytest.raises(ValueError, match=message):
        task.examples("train")
