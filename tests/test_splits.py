"""Splitting by hash, against a slow reference."""

from __future__ import annotations

import hashlib

import pytest

from spaces.tasks import SPLITS, majority_share
from spaces.tasks.sources.splits import balanced, largest_classes, split_by_hash


@pytest.mark.parametrize("count", [3, 14, 15, 40, 100])
def test_a_tenth_of_the_keys_with_the_smallest_hashes_is_validation_and_the_next_tenth_test(count: int) -> None:
    names = [f"speaker {number}" for number in range(count)]
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    tenth = max(1, round(count / 10))
    splits = split_by_hash([(name, take) for take in range(2) for name in names], key=lambda item: item[0])
    expected = {"validation": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    for split in SPLITS:
        assert splits[split] == [(name, take) for take in range(2) for name in names if name in expected[split]]


def test_a_split_that_is_not_held_out_stays_in_train() -> None:
    both, one = split_by_hash(range(50)), split_by_hash(range(50), held_out=["test"])
    assert one["test"] == both["test"]
    assert one["validation"] == []
    assert one["train"] == sorted(both["train"] + both["validation"])


def test_fewer_than_three_keys_are_all_in_train() -> None:
    assert split_by_hash("ab") == {"train": ["a", "b"], "validation": [], "test": []}


def test_largest_classes_come_first_and_ties_by_name() -> None:
    assert largest_classes({"b": 2, "c": 3, "a": 2, "d": 1}, 3) == ("c", "a", "b")


def test_balanced_keeps_equally_many_files_of_each_class() -> None:
    files = [f"{name}/{number}" for name, count in (("a", 9), ("b", 2)) for number in range(count)]
    kept = balanced(files, 7, "train", 2, label=lambda file: file[0])
    assert [file[0] for file in kept] == ["a"] * 3 + ["b"] * 2
    with pytest.raises(ValueError, match="train=1: it must be a whole number from 2"):
        balanced(files, 1, "train", 2, label=lambda file: file[0])


def test_majority_share_is_the_accuracy_of_the_most_frequent_label() -> None:
    assert majority_share("abcab" + "a") == 3 / 6
