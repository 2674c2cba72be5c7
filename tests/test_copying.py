"""Copying and selective copying: labels recomputed token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spaces.tasks import IGNORE_INDEX, SPLITS
from spaces.tasks.copying import Copying
from spaces.tasks.selective_copying import SelectiveCopying

KINDS = (Copying, SelectiveCopying)
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"length": 33, "tokens": 16, "symbols": 2, "causal": True, "train": 50},  # no blank before the marker
    {"length": 41, "tokens": 1, "seed": 3},
)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_after_the_marker_are_the_content_before_it(kind: type[Copying], settings: dict[str, Any]) -> None:
    task = kind(**settings)
    assert task.spec.causal == settings.get("causal", False)
    for split in SPLITS:
        inputs, _, labels, *_ = task.examples(split)
        assert len(inputs) == task.sizes[split]
        for row, row_labels in zip(inputs.tolist(), labels.tolist(), strict=True):
            at = row.index(task.marker)
            content = [token for token in row[:at] if token != task.blank]
            assert len(content) == task.tokens
            assert max(content) < task.symbols == task.spec.classes
            assert row[at + 1 :] == [task.blank] * task.tokens
            assert row_labels == [IGNORE_INDEX] * (at + 1) + content


def test_content_is_contiguous_in_copying_and_anywhere_in_selective_copying() -> None:
    fixed, anywhere = (kind(train=4000).examples("train").inputs[:, :119] for kind in KINDS)
    assert (fixed[:, :8] < 14).all()
    assert (fixed[:, 8:] == 14).all()
    shares = (anywhere < 14).double().mean(0)
    assert shares.tolist() == pytest.approx([8 / 119] * 119, abs=0.02), "also at the very end"
    places = [tuple(row.nonzero().flatten().tolist()) for row in anywhere < 14]
    assert len(set(places)) == 4000, "drawn anew for each row"


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_prediction_has_chance_accuracy(kind: type[Copying]) -> None:
    labels = kind(train=4000).examples("train").labels
    shares = torch.bincount(labels[labels != IGNORE_INDEX]) / (labels != IGNORE_INDEX).sum()
    assert shares.tolist() == pytest.approx([kind().chance] * 14, abs=0.008)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 64}, "length=128: it must be a whole number from 129"),
        ({"tokens": 0}, "tokens=0: it must be a whole number from 1"),
        ({"symbols": 1}, "symbols=1: it must be a whole number from 2"),
        ({"causal": 1}, "causal=1: it must be true or false"),
        ({"test": 0}, "test=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_invalid_settings_are_refused(kind: type[Copying], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)
