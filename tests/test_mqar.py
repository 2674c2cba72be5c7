"""MQAR: labels recomputed with a dictionary, and positions of the queries compared with sequential sampling."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from spaces.tasks import IGNORE_INDEX, SPLITS, Split
from spaces.tasks.mqar import MQAR

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"noise": True, "seed": 2},
    {"length": 40, "pairs": 10, "vocabulary": 22, "causal": True, "train": 50},  # every even place, every key
    {"length": 6, "pairs": 1, "vocabulary": 4, "power": 1.0, "train": 50},
)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_query_is_an_earlier_key_and_its_label_the_value_of_that_key(settings: dict[str, Any], split: Split) -> None:
    task = MQAR(**settings)
    inputs, _, labels, *_ = task.examples(split)
    first = 2 * task.pairs
    assert task.spec.causal == settings.get("causal", False)
    for row, row_labels in zip(inputs.tolist(), labels.tolist(), strict=True):
        values = dict(zip(row[0:first:2], row[1:first:2], strict=True))
        assert len(values) == len(set(values.values())) == task.pairs
        assert all(1 <= key < task.first_value <= value < 2 * task.first_value for key, value in values.items())
        queries = [at for at, label in enumerate(row_labels) if label != IGNORE_INDEX]
        assert sorted(row[at] for at in queries) == sorted(values)
        assert all(row_labels[at] + task.first_value == values[row[at]] for at in queries)
        assert min(queries) >= first
        assert not any(at % 2 for at in queries)
        if not task.noise:
            assert all(row[at] == 0 for at in range(first, len(row)) if at not in queries)
    assert not task.noise or len(inputs.unique()) == task.spec.vocabulary


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0])
def test_query_positions_are_distributed_as_in_sequential_sampling(power: float) -> None:
    task = MQAR(length=32, pairs=4, power=power, train=6000)
    inputs, _, labels, *_ = task.examples("train")
    second = (inputs[:, 8:] == inputs[:, 2:3]).double().argmax(1) // 2  # where the second pair is asked for
    found = torch.bincount(second, minlength=12) / len(second)
    generator, counts = random.Random(0), [0] * 12
    for _ in range(6000):
        left = list(range(12))
        for _ in range(2):
            gap = generator.choices(left, [(gap + 1) ** (power - 1) for gap in left])[0]
            left.remove(gap)
        counts[gap] += 1
    assert found.tolist() == pytest.approx([count / 6000 for count in counts], abs=0.03)
    assert (labels != IGNORE_INDEX).sum() == 4 * 6000


def test_a_constant_prediction_has_chance_accuracy() -> None:
    labels = MQAR(train=4000).examples("train").labels
    shares = torch.bincount(labels[labels != IGNORE_INDEX]) / (labels != IGNORE_INDEX).sum()
    assert shares.tolist() == pytest.approx([MQAR().chance] * 32, abs=0.005)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 33}, "length=128: it must be a whole number from 132"),
        ({"length": 65}, "length=65: it must be even"),
        ({"vocabulary": 17}, "vocabulary=17: it must be a whole number from 18"),
        ({"vocabulary": 63}, "vocabulary=63: it must be even"),
        ({"power": 1.5}, r"power=1\.5: it must be a number of 0 to 1"),
        ({"noise": "yes"}, "noise='yes': it must be true or false"),
        ({"causal": 0}, "causal=0: it must be true or false"),
        ({"pairs": 0}, "pairs=0"),
        ({"train": 0}, "train=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MQAR(**settings)
