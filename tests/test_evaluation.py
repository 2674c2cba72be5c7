"""The margins of metrics on test: how often intervals hold the true value, and against the formula written out."""

import math

import numpy as np
import pytest
import torch
from tiny_task import FirstToken

from spaces.evaluation import margin_name, margin_of_mean, metrics_on, wilson_margin
from spaces.tasks.recall import Recall


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_the_margin_of_a_share_reaches_the_true_one_at_least_as_often_as_it_claims(share):
    found = np.random.default_rng(0).binomial(100, share, size=4000) / 100
    reached = np.mean([abs(each - share) <= wilson_margin(each, 100) for each in found])
    assert 0.93 <= reached <= 1.0
    assert wilson_margin(share, 10_000) < 0.011


def test_the_margin_of_batches_holds_the_mean_also_where_labels_of_an_example_depend_on_each_other():
    random, reached, as_if_independent = np.random.default_rng(0), [], []
    for _ in range(1000):
        hard = random.beta(2, 2, size=200)  # the share of correct labels of each example
        labels = random.random((200, 16)) < hard[:, None]
        found = labels.reshape(20, 10 * 16).mean(axis=1)
        reached.append(abs(labels.mean() - 0.5) <= margin_of_mean(found.tolist()))
        as_if_independent.append(abs(labels.mean() - 0.5) <= wilson_margin(labels.mean(), labels.size))
    assert np.mean(reached) == pytest.approx(0.95, abs=0.02)
    assert np.mean(as_if_independent) < 0.75


@pytest.mark.parametrize("values", [[], [0.5] * 4, [0.5, 0.6, 0.7, 0.8, math.nan]])
def test_few_or_undefined_values_have_no_margin(values):
    assert margin_of_mean(values) is None


def guess(task):
    """Labels that are right at every other place."""

    class Guess(torch.nn.Module):
        def forward(self, batch):
            noise = torch.rand(batch.labels.shape, generator=torch.Generator().manual_seed(0)) < 0.5
            labels = torch.where(noise, batch.labels.clamp(min=0), 0)
            return torch.nn.functional.one_hot(labels, task.spec.classes).float()

    return Guess()


@pytest.mark.parametrize("size", [100, 103, 7])
def test_on_test_the_metric_of_a_label_per_token_has_the_margin_of_its_batches(size):
    task = Recall(train=10, validation=50, test=size)
    network, sizes = guess(task), []

    def step(batch):
        sizes.append(batch.size)
        return task.eval_step(network, batch)

    metrics = metrics_on(task, "test", 64, step)
    batch = math.ceil(size / 20)
    assert sizes == [batch] * (size // batch) + [size % batch] * bool(size % batch)
    values = [
        task.compute_metrics([task.eval_step(network, each)])["accuracy"]
        for each in task.batches("test", batch)
        if each.size == batch
    ]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    quantile = {20: 2.093024, 17: 2.119905, 7: 2.446912}[len(values)]  # of Student's t, from a table
    assert metrics[margin_name("accuracy")] == pytest.approx(quantile * deviation / math.sqrt(len(values)), rel=1e-5)
    assert margin_name("accuracy") not in metrics_on(task, "validation", 64, step)


def test_on_test_a_share_of_examples_has_the_margin_of_wilson():
    task = FirstToken()
    metrics = metrics_on(task, "test", 64, lambda batch: task.eval_step(guess(task), batch))
    assert metrics["accuracy_margin"] == wilson_margin(metrics["accuracy"], task.steps("test", 1))
