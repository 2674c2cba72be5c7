"""Multi-task learning: a shared trunk, compared with single tasks."""

import math

import pytest
import torch
from tiny_task import FirstToken

from search.training.evaluation import evaluate_split
from search.training.fit import LightningFit
from search.training.settings import TrainSettings
from spaces.attention import Shape
from spaces.attention.softmax import SoftmaxAttention
from spaces.metrics import METRICS
from spaces.models.config import ModelConfig
from spaces.models.encoder import Encoder
from spaces.models.shared import SharedEncoder
from spaces.tasks import TaskSpec
from spaces.tasks.multitask import Multitask
from spaces.tasks.patches import Patches
from spaces.tasks.recall import Recall
from spaces.tasks.translation import Translation


def tasks(**more):
    return {
        "first": FirstToken(rows=20),
        "recall": Recall(length=64, pairs=2, keys=4, answers=3, train=9, validation=5, test=3),
        "patches": Patches(side=8, patch=2, train=30),
        **more,
    }


def network(task):
    torch.manual_seed(0)
    mechanism = SoftmaxAttention(Shape(8, 2, task.spec.length))
    return SharedEncoder([mechanism], ModelConfig(8), spec=task.spec).eval()


def test_a_shared_encoder_gives_each_task_the_output_of_a_single_encoder():
    task = Multitask(tasks=tasks())
    shared, batch = network(task), Multitask(tasks=tasks()).sample(2)
    for (name, part), answers in zip(task.subtasks.items(), shared(batch), strict=True):
        own = Encoder([shared.trunk.blocks[0].mechanism], ModelConfig(8), spec=part.spec).eval()
        own.embedding, own.trunk, own.head = shared.embeddings[name], shared.trunk, shared.heads[name]
        torch.testing.assert_close(own(part.sample(2)), answers)
        assert answers.shape == (2, *part.spec.answer_shape)


def test_evaluation_covers_every_example_once_and_every_training_step_has_all_tasks():
    task = Multitask(tasks=tasks())
    evaluated = list(task.batches("validation", 4))
    assert len(evaluated) == task.steps("validation", 4) == math.ceil(360 / 4)
    for at, part in enumerate(task.subtasks.values()):
        rows = [
            row for batch in evaluated if batch.subtasks[at] is not None for row in batch.subtasks[at].inputs.tolist()
        ]
        assert rows == part.examples("validation").inputs.tolist()
    steps = list(task.batches("train", 4, shuffle=3))
    assert len(steps) == task.steps("train", 4) == 8
    assert all(part is not None for batch in steps for part in batch.subtasks)
    few = [tuple(row) for batch in steps for row in batch.subtasks[1].inputs.tolist()]
    assert len(set(few)) == 9 < len(few), "the smallest task is repeated"
    assert sorted(few[:9]) == sorted(few[9:18]), "each repetition contains all examples"
    assert few[:9] != few[9:18], "each repetition has another order"
    again = list(task.batches("train", 4, shuffle=3))
    for batch, other in zip(steps, again, strict=True):
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(batch.subtasks, other.subtasks, strict=True))


def test_the_loss_is_the_mean_of_the_tasks_losses():
    task = Multitask(tasks=tasks())
    batch, shared = next(task.batches("train", 4, shuffle=0)), network(task)
    answers = shared(batch)
    losses = [part.loss(answers[at], batch.subtasks[at]).item() for at, part in enumerate(task.subtasks.values())]
    assert task.loss(answers, batch).item() == pytest.approx(sum(losses) / 3)


def test_progress_is_the_mean_of_the_normalized_metrics():
    task = Multitask(tasks=tasks())
    scores = evaluate_split(network(task), task, "test")
    assert set(scores) == {"progress", *(f"{name}_{metric}" for name in task.subtasks for metric in METRICS)}
    ways = [(scores[f"{name}_accuracy"] - part.chance) / (1 - part.chance) for name, part in task.subtasks.items()]
    assert scores["progress"] == pytest.approx(sum(ways) / 3)
    assert task.compute_metrics([[(20, 20), (5, 5), (9, 9)]])["progress"] == pytest.approx(1.0)


def test_progress_is_that_of_the_metrics_of_the_tasks():
    task = Multitask(tasks=tasks())
    for part, metric in zip(task.subtasks.values(), ("error_rate", "auroc", "macro_f1"), strict=True):
        part.configure(metric=metric)
    scores = evaluate_split(network(task), task, "validation")
    error, auroc, f1 = scores["first_error_rate"], scores["recall_auroc"], scores["patches_macro_f1"]
    wrong, base = (task.subtasks[name].objective_chance for name in ("first", "patches"))
    assert scores["progress"] == pytest.approx((1 - error / wrong + 2 * auroc - 1 + (f1 - base) / (1 - base)) / 3)


@pytest.mark.slow
def test_all_tasks_are_learned():
    task = Multitask(tasks={"one": FirstToken(), "two": FirstToken(rows=32)})
    shared = network(task)
    with LightningFit(shared, task, TrainSettings(epochs=14, batch_size=16, lr=0.03), seed=0) as training:
        curve = [progress for _, progress in training]
    assert curve[-1] > 0.5 > curve[0]


class Causal(FirstToken):
    def __init__(self):
        super().__init__()
        self.spec = TaskSpec(length=8, vocabulary=3, classes=3, per_token=True, causal=True)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "tasks: none; it must be two or more"),
        ({"one": FirstToken()}, "tasks: one; it must be two or more"),
        (tasks(bad=Causal()), "tasks.bad: it is causal"),
        (tasks(bad=Translation(train=2, validation=1, test=1)), "tasks.bad: it is sequence-to-sequence"),
        (tasks(bad=Multitask(tasks=tasks())), "tasks.bad: it is multi-task"),
        (tasks(bad={"length": 3}), "tasks.bad: {'length': 3} is not a task"),
    ],
)
def test_tasks_that_cannot_share_a_trunk_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        Multitask(tasks=parts)


def test_a_shared_encoder_needs_several_tasks():
    with pytest.raises(ValueError, match="this task is a single one"):
        SharedEncoder([], ModelConfig(8), spec=FirstToken().spec)


@pytest.mark.parametrize("length", [0, 65])
def test_a_sample_is_at_most_as_long_as_the_longest_task(length):
    with pytest.raises(ValueError, match="the task has sequence lengths from 1 to 64"):
        Multitask(tasks=tasks()).sample(length=length)
    shapes = [part.inputs.shape[1] for part in Multitask(tasks=tasks()).sample(1, 10).subtasks]
    assert shapes == [8, 10, 10]
