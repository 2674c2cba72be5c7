"""Training recipes: schedules, accumulation, losses, which weights count, each also in resumed trainings."""

import copy
import functools
import itertools
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from sklearn.utils.class_weight import compute_class_weight
from tiny_task import TREE, FirstToken, run_trials, tiny_search, tiny_study
from torch.optim.optimizer import register_optimizer_step_post_hook

from search.training.check import validate_settings
from search.training.evaluation import evaluate_split
from search.training.fit import LightningFit
from search.training.learner import LightningLearner
from search.training.loss import TrainingLoss, balanced_weights
from search.training.module import TrainingModule
from search.training.schedule import SCHEDULES, learning_rate_factor
from search.training.settings import TrainSettings
from spaces.augmentation.mixing import mixup
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.space import Space
from spaces.tasks import Batch, TaskSpec

ARCHITECTURE = list(Space(TREE).corners())[-1]
SETTINGS = TrainSettings(epochs=3, batch_size=16, lr=0.03)


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({}, [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ({"name": "linear"}, [0.5, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]),
        ({"name": "cosine"}, [0.5, *((1 + math.cos(math.pi * step / 9)) / 2 for step in range(9))]),
        ({"name": "wsd", "decay": 1 / 3}, [0.5, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3]),
        ({"name": "linear", "warmup": 0.0}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_the_learning_rate_follows_the_schedule(settings, factors):
    factor = learning_rate_factor(**{"name": "constant", "total_steps": 10, "warmup": 0.2, "decay": 0.2, **settings})
    assert [factor(step) for step in range(10)] == pytest.approx(factors)
    assert 0 <= factor(10) <= 1  # Lightning asks for it after the last step


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 37])
def test_no_learning_rate_is_0_before_the_end(schedule, total):
    factor = learning_rate_factor(schedule, total, warmup=0.05, decay=0.2)
    assert all(0 < factor(step) <= 1 for step in range(total))


def learning_rates(settings):
    """The learning rate of each optimizer step of a training."""
    rates = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        with LightningFit(build(ARCHITECTURE, FirstToken()), FirstToken(), settings, seed=0) as training:
            list(training)
    finally:
        hook.remove()
    return rates


def test_the_schedule_counts_optimizer_steps():
    settings = replace(SETTINGS, epochs=2, accumulate=3, schedule="linear")  # 4 batches an epoch: steps of 3 and 1
    factor = learning_rate_factor("linear", 4, warmup=settings.warmup, decay=settings.decay)
    assert learning_rates(settings) == pytest.approx([0.03 * factor(step) for step in range(4)])


def train(settings, *, checkpoint=None, save=None, seed=3, task=None, network_seed=0):
    """The network and the curve of a training; ``save`` is where to write a checkpoint after the first epoch."""
    tree = {**TREE, "model": {**TREE["model"], "dropout": 0.3}}
    task = task or FirstToken()
    network = build(list(Space(tree).corners())[-1], task, seed=network_seed)
    curve = []
    with LightningFit(network, task, settings, seed=seed, checkpoint=checkpoint) as training:
        for epoch, metric in training:
            curve.append((epoch, metric))
            if save and epoch == 1:
                torch.save(training.state_dict(), save)
    return training, network, curve


RECIPES = {
    "linear": {"schedule": "linear"},
    "cosine": {"schedule": "cosine", "accumulate": 3},
    "wsd": {"schedule": "wsd", "label_smoothing": 0.1},
    "best of averages": {"ema": 0.9, "keep_best": True},
    "augmented": {"token_dropout": 0.2},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_resumed_training_equals_an_uninterrupted_one(recipe, tmp_path):
    settings = replace(SETTINGS, warmup=0.3, **recipe)
    uninterrupted, whole, curve = train(settings, save=tmp_path / "1.pt")
    training, resumed, rest = train(settings, checkpoint=tmp_path / "1.pt", network_seed=9)
    assert (rest, training.metric) == (curve[1:], uninterrupted.metric)
    assert training.evaluate("test") == uninterrupted.evaluate("test")
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


class Watched(FirstToken):
    """Frames, of which the network's loss and evaluation are recorded."""

    def __init__(self):
        super().__init__()
        self.spec = TaskSpec(length=8, features=3, classes=3, per_token=False)
        self.trained, self.evaluated = [], []

    def examples(self, split):
        batch = super().examples(split)
        return batch._replace(inputs=F.one_hot(batch.inputs, 3).float())

    def loss(self, logits, batch):
        self.trained.append(batch)
        return super().loss(logits, batch)

    def eval_step(self, network, batch):
        self.evaluated.append(batch)
        return super().eval_step(network, batch)


def test_only_training_batches_are_augmented():
    task = Watched()
    train(replace(SETTINGS, time_shift=0.3, mixup=1.0), task=task)
    known = {tuple(row.flatten().tolist()) for split in ("train", "validation") for row in task.data(split).inputs}

    def unknown(batches):
        rows = [row for batch in batches for row in batch.inputs]
        return sum(tuple(row.flatten().tolist()) not in known for row in rows) / len(rows)

    assert unknown(task.trained) > 0.5
    assert unknown(task.evaluated) == 0


def test_the_loss_of_a_mixed_batch_is_that_of_both_labels():
    task, settings = Watched(), replace(SETTINGS, mixup=1.0)
    module = TrainingModule(
        build(ARCHITECTURE, task), task, settings, seed=0, epochs_done=0, optimizer_state=None
    ).eval()
    batch = task.data("train")
    torch.manual_seed(5)
    loss = module._loss(batch)
    torch.manual_seed(5)
    mixed, others, share = mixup(batch, 1.0)
    probabilities = module.network(mixed).log_softmax(-1)
    target = share * F.one_hot(batch.labels, 3) + (1 - share) * F.one_hot(others, 3)
    torch.testing.assert_close(loss, -(target * probabilities).sum(-1).mean())


class Scripted(FirstToken):
    """Its validation metrics are given, by epoch; the others are computed."""

    def __init__(self, metrics, direction="maximize"):
        super().__init__()
        self.metrics, self.direction = iter(metrics), direction

    def compute_metrics(self, outputs):
        return {"accuracy": next(self.metrics)}


@pytest.mark.parametrize(
    ("metrics", "direction", "best"),
    [
        ([0.5, 0.7, 0.6], "maximize", 2),
        ([0.5, 0.7, 0.6], "minimize", 1),
        ([0.7, 0.7, 0.6], "maximize", 1),
    ],
)
@pytest.mark.parametrize("resume_after", [None, 1])
def test_the_best_epoch_is_kept(metrics, direction, best, resume_after, tmp_path):
    settings = replace(SETTINGS, keep_best=True)
    network, weights = build(ARCHITECTURE, FirstToken()), {}
    task = Scripted(metrics, direction)
    with LightningFit(network, task, settings, seed=0) as training:
        for epoch, _ in training:
            weights[epoch] = copy.deepcopy(network.state_dict())
            torch.save(training.state_dict(), tmp_path / f"{epoch}.pt")
    if resume_after:
        network, task = build(ARCHITECTURE, FirstToken(), seed=9), Scripted(metrics[resume_after:], direction)
        training = LightningFit(network, task, settings, seed=0, checkpoint=tmp_path / f"{resume_after}.pt")
        with training:
            assert [epoch for epoch, _ in training] == [2, 3]
    assert training.metric == metrics[best - 1]
    for split in ("validation", "test"):
        evaluated = []
        task.eval_step = lambda network, batch, into=evaluated: into.append(copy.deepcopy(network.state_dict()))
        task.metrics = iter([0.0])
        training.evaluate(split)
        for name, tensor in weights[best].items():
            assert torch.equal(evaluated[0][name], tensor)
    for name, tensor in weights[3].items():
        assert torch.equal(network.state_dict()[name], tensor), "evaluation has changed the trained network"


def test_a_trial_counts_with_its_best_epoch_and_keeps_the_measured_curve(tmp_path):
    task = Scripted([0.3, 0.9, 0.4, 0.9, 0.8])  # three epochs on validation, the best one again, then the test split
    tree = {**TREE, "train": {**TREE["train"], "keep_best": True}}
    search = replace(tiny_search(tree), learner=LightningLearner(task, 0, tmp_path))
    (trial,) = run_trials(tiny_study(f"sqlite:///{tmp_path}/db"), search, 1)
    assert trial.state == "complete"
    assert trial.curve == [(1, 0.3), (2, 0.9), (3, 0.4)]
    assert (trial.metric, trial.test_metrics["accuracy"]) == (0.9, 0.8)


def test_the_moving_average_of_the_weights_is_evaluated():
    network = build(ARCHITECTURE, FirstToken())
    expected = {name: tensor.double() for name, tensor in network.state_dict().items()}
    step = itertools.count()

    def update(*_):
        decay = min(0.6, (1 + (n := next(step))) / (10 + n))
        for name, tensor in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()

    hook = register_optimizer_step_post_hook(update)
    task = FirstToken()
    try:
        with LightningFit(network, task, replace(SETTINGS, ema=0.6), seed=0) as training:
            curve = list(training)
            metrics = training.evaluate("validation")
    finally:
        hook.remove()
    average = build(ARCHITECTURE, task, seed=9)
    average.load_state_dict({name: tensor.float() for name, tensor in expected.items()})
    assert next(step) == 12
    assert evaluate_split(average, task, "validation") == metrics
    assert metrics["accuracy"] == curve[-1][1]
    for name, tensor in training._module.evaluated.state_dict().items():
        torch.testing.assert_close(tensor, expected[name].float())


@functools.cache
def logits_and_batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 2, 2, 1, 0, -100])
    return torch.randn(6, 3, generator=generator), Batch(torch.zeros(6, 8, dtype=torch.long), None, labels)


def slow_loss(logits, labels, *, smoothing=0.0, weights=(1.0, 1.0, 1.0)):
    """Cross-entropy with the targets written out, example by example."""
    terms, norm = [], 0.0
    for row, label in zip(logits.log_softmax(-1), labels.tolist(), strict=True):
        if label >= 0:
            target = torch.full((3,), smoothing / 3)
            target[label] += 1 - smoothing
            terms.append(-(target * row * torch.tensor(weights)).sum())
            norm += weights[label]
    return torch.stack(terms).sum() / norm


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_in_the_training_loss(smoothing):
    logits, batch = logits_and_batch()
    loss = TrainingLoss(FirstToken(), replace(SETTINGS, label_smoothing=smoothing))(logits, batch)
    torch.testing.assert_close(loss, slow_loss(logits, batch.labels, smoothing=smoothing))


def test_the_readme_lists_every_setting_with_its_default():
    section = (Path(__file__).parents[1] / "search" / "README.md").read_text().split("## Training settings")[1]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", section.split("\n## ")[0], re.MULTILINE)
    listed: dict[str, str] = {}
    for names, defaults in rows:
        listed |= dict(zip(re.findall(r"`(\w+)`", names), [*defaults.split(", "), *[""] * 3], strict=False))
    settings = {each.name: each.default for each in fields(TrainSettings)}
    assert set(listed) == set(settings)
    for name, default in settings.items():
        if name not in ("epochs", "lr", "batch_size"):
            assert yaml.safe_load(listed[name]) == default, name


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_balanced_classes_count_by_their_inverse_frequency(smoothing):
    class Unbalanced(FirstToken):
        def examples(self, split):
            labels = torch.tensor([0] * 6 + [1] * 3 + [2] if split == "train" else [1] * 10)
            return Batch(torch.zeros(10, 8, dtype=torch.long), None, labels)

    weights = compute_class_weight("balanced", classes=np.arange(3), y=Unbalanced().data("train").labels.numpy())
    logits, batch = logits_and_batch()
    settings = replace(SETTINGS, class_weights="balanced", label_smoothing=smoothing)
    loss = TrainingLoss(Unbalanced(), settings)(logits, batch)
    torch.testing.assert_close(loss, slow_loss(logits, batch.labels, smoothing=smoothing, weights=weights.tolist()))


def test_the_weights_of_absent_classes_and_of_tokens_without_a_label():
    weights = balanced_weights(torch.tensor([[0, 0, -100], [0, 2, -100]]), 4)
    assert weights.tolist() == pytest.approx([4 / (2 * 3), 0, 4 / 2, 0])


class OwnLoss(FirstToken):
    def loss(self, logits, batch):
        return F.mse_loss(logits.softmax(-1), F.one_hot(batch.labels, 3).float())


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (
            OwnLoss(),
            {"label_smoothing": 0.1},
            "train: label_smoothing=0.1: it is for tasks whose loss is cross-entropy",
        ),
        (FirstToken(), {"flip": 0.5}, "train: flip=0.5: it is for images; FirstToken has token ids"),
        (OwnLoss(), {"token_dropout": 0.5}, "train: token_dropout=0.5: it is for token ids of texts, and a loss over"),
        (OwnLoss(), {"class_weights": "balanced"}, "train: class_weights='balanced': it is for tasks whose loss is"),
        (FirstToken(), {"class_weights": "auto"}, "train: class_weights='auto': it must be none or balanced"),
        (FirstToken(), {"ema": 1.0}, "train: ema=1.0: it must be at least 0 and below 1"),
        (FirstToken(), {"keep_best": "last"}, "train: keep_best='last': it must be true or false"),
        (FirstToken(), {"schedule": "step"}, "train: schedule='step': it must be constant, linear, cosine, wsd"),
        (FirstToken(), {"decay": 0.0}, "train: decay=0.0: it must be above 0"),
        (FirstToken(), {"accumulate": 0}, "train: accumulate=0: it must be a whole number from 1"),
        (FirstToken(), {"label_smoothing": 1.0}, "train: label_smoothing=1.0: it must be at least 0 and below 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(task, settings, message):
    with pytest.raises(ConfigError, match=message):
        validate_settings({"epochs": 1, "lr": 0.1, **settings}, task)
