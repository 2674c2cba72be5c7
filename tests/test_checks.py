"""Checks of the data before training."""

import logging

import pytest
import torch
from tiny_task import FirstToken

from spaces.tasks import IGNORE_INDEX, SPLITS, Batch
from spaces.tasks.digits import Digits
from spaces.tasks.recall import Recall
from spaces.tasks.sources.checks import check_data


class Given(FirstToken):
    """Rows of eight tokens with given labels; rows differ between splits, except for those in ``same``."""

    def __init__(self, *, class_names=(), per_token=False, same=(), **labels):
        super().__init__()
        self.class_names, self.per_token, self.same, self.labels = class_names, per_token, same, labels

    def examples(self, split):
        labels = torch.tensor(self.labels.get(split, [0, 1]), dtype=torch.int64)
        number = 0 if split in self.same else SPLITS.index(split)
        inputs = torch.arange(8 * len(labels)).reshape(-1, 8) + 1000 * number
        return Batch(inputs, None, labels[:, None].expand(-1, 8) if self.per_token else labels)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Given(validation=[]), "validation: no examples"),
        (Given(test=[IGNORE_INDEX] * 3), "test: no labels"),
        (Given(train=[1, 1, 1]), "train: all 3 examples are of class 1; at least two classes are needed"),
        (Given(train=[1, 1], class_names=("no", "yes")), "train: all 2 examples are of 'yes'"),
        (Given(train=[1, 1], per_token=True), "train: all 2 examples are of class 1"),
        (Given(validation=[1, 1]), "validation: all 2 examples are of class 1; at least two classes are needed"),
        (Given(validation=[0, 2, 3]), "validation: train has no example of class 2, class 3"),
        (Given(test=[0, 2], class_names=("a", "b", "c")), "test: train has no example of 'c'"),
    ],
)
def test_unusable_data_is_refused(task, message):
    with pytest.raises(ValueError, match=message):
        check_data(task)


@pytest.mark.parametrize("task", [Given(), Given(validation=[0, 2], per_token=True), Digits(), Recall(train=10)])
def test_usable_data_causes_no_warning(task, caplog):
    with caplog.at_level(logging.WARNING):
        check_data(task)
    assert not caplog.records


def test_examples_that_are_also_in_train_cause_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        check_data(Given(train=[0, 1, 0], test=[1, 0, 0, 1], same=("test",)))
    assert [record.getMessage() for record in caplog.records] == ["3 of 4 test examples are also in train"]


class Padded(FirstToken):
    def examples(self, split):
        at = SPLITS.index(split)
        padding = torch.arange(8) >= torch.tensor([[5 - at], [3]])  # 7 7 7 7 7, 7 7 7 7 and 7 7 7, then padding
        return Batch(torch.full((2, 8), 7), padding, torch.tensor([0, 1]))


def test_examples_are_compared_without_padding(caplog):
    with caplog.at_level(logging.WARNING):
        check_data(Padded())
    ending = "examples are also in train"
    assert [record.getMessage() for record in caplog.records] == [
        f"1 of 2 validation {ending}",
        f"2 of 2 test {ending}",
    ]
