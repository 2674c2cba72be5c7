"""Metrics of classification against slow references, undefined cases, and each as the objective of a study."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny_task import FirstToken, run_trials, tiny_search, tiny_study

from search.report.imbalance import describe_imbalance
from search.study.identity import identity_of
from search.study.records import Objectives
from search.tracking.summaries import trial_data
from search.training.learner import LightningLearner
from spaces.baselines.majority import Majority
from spaces.baselines.svm import Svm
from spaces.dimensions import ConfigError
from spaces.evaluation import margin_name
from spaces.instantiate import instantiate
from spaces.metrics import MAX_SCORED, METRICS, Predictions, chance_level, metrics_of
from spaces.tasks import IGNORE_INDEX, Batch, Task, TaskSpec
from spaces.tasks.digits import Digits
from spaces.tasks.patches import Patches
from spaces.tasks.text import Text
from spaces.tasks.tts import Tts


class Given(Task):
    """Labels of all splits are given; inputs are the row numbers."""

    def __init__(self, labels, *, classes=2, class_names=(), per_token=False):
        self.labels, self.class_names, self.chance = torch.tensor(labels), class_names, 0.5
        self.spec = TaskSpec(length=1, features=1, classes=classes, per_token=per_token)

    def examples(self, split):
        return Batch(torch.arange(len(self.labels)).view(-1, 1, 1).float(), None, self.labels)


# Slow, obvious references: sums over classes, and over pairs of examples ------------------------------------------


def share(of, among):
    among = list(among)
    return sum(map(of, among)) / len(among) if among else 0.0


def mean_over_classes(value, rows):
    classes = {label for label, *_ in rows}
    return sum(value(each) for each in classes) / len(classes)


def area(rows, each):
    """How often an example of the class has a higher probability of it than one of another class; a tie is a half."""
    inside = [scores[each] for label, _, scores in rows if label == each]
    outside = [scores[each] for label, _, scores in rows if label != each]
    return share(lambda pair: (pair[0] > pair[1]) + (pair[0] == pair[1]) / 2, product(inside, outside))


def f1(rows, each):
    precision = share(lambda row: row[0] == each, (row for row in rows if row[1] == each))
    recall = share(lambda row: row[1] == each, (row for row in rows if row[0] == each))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


REFERENCES = {
    "accuracy": lambda rows: share(lambda row: row[0] == row[1], rows),
    "error_rate": lambda rows: share(lambda row: row[0] != row[1], rows),
    "balanced_accuracy": lambda rows: mean_over_classes(
        lambda each: share(lambda row: row[1] == each, (row for row in rows if row[0] == each)), rows
    ),
    "macro_f1": lambda rows: mean_over_classes(lambda each: f1(rows, each), rows),
    "auroc": lambda rows: mean_over_classes(lambda each: area(rows, each), rows),
}


def drawn(classes, *, rows=40, missing=(), seed=0):
    """Logits ``(rows, classes)`` with ties, and labels, some of which are to be ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(4, (rows, classes), generator=generator).float()
    allowed = torch.tensor([each for each in range(classes) if each not in missing])
    labels = allowed[torch.randint(len(allowed), (rows,), generator=generator)]
    labels[::7] = IGNORE_INDEX
    return logits, labels


def test_every_metric_has_a_reference():
    assert METRICS.keys() == REFERENCES.keys()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("classes", "missing"), [(2, ()), (3, ()), (5, (1, 4))], ids=["two", "several", "two of five missing"]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_metric_agrees_with_its_reference(name, classes, missing, seed):
    logits, labels = drawn(classes, missing=missing, seed=seed)
    rows = [
        (label, int(row.argmax()), row.softmax(-1).tolist())
        for row, label in zip(logits.double(), labels.tolist(), strict=True)
        if label != IGNORE_INDEX
    ]
    parts = [
        Predictions.of(part, some, scored=True) for part, some in zip(logits.split(16), labels.split(16), strict=True)
    ]
    assert metrics_of(parts, [name]) == {name: pytest.approx(REFERENCES[name](rows), abs=1e-12)}


@pytest.mark.parametrize("name", METRICS)
def test_perfect_predictions_are_the_best(name):
    labels = torch.tensor([[0, 2, IGNORE_INDEX], [1, 1, 0]])
    logits = 9 * torch.nn.functional.one_hot(labels.clamp(min=0), 3).float()
    assert metrics_of([Predictions.of(logits, labels, scored=True)], METRICS)[name] == METRICS[name].best


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        pytest.param([[0.0, 1.0], [1.0, 0.0]], [1, 1], id="one class"),
        pytest.param([[0.0, math.nan], [1.0, 0.0]], [1, 0], id="NaN"),
        pytest.param([[0.0, math.inf], [1.0, 0.0]], [1, 0], id="infinite"),
    ],
)
def test_an_undefined_area_is_left_out_and_as_an_objective_nan(logits, labels):
    task = Given(labels)
    outputs = [task.eval_step(lambda batch: torch.tensor(logits), task.data("test"))]
    assert task.compute_metrics(outputs).keys() == METRICS.keys() - {"auroc"}
    task.configure(metric="auroc")
    assert math.isnan(task.compute_objective(outputs))


def test_logits_of_many_classes_are_kept_for_an_objective_that_needs_them_only():
    logits = torch.eye(MAX_SCORED + 1)
    task = Given(list(range(MAX_SCORED + 1)), classes=MAX_SCORED + 1)
    outputs = task.eval_step(lambda batch: logits, task.data("test"))
    assert outputs.logits is None
    assert task.compute_metrics([outputs]).keys() == METRICS.keys() - {"auroc"}
    task.configure(metric="auroc")
    assert task.compute_objective([task.eval_step(lambda batch: logits, task.data("test"))]) == 1


# Chance -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1, 1, 1, 2, 4, IGNORE_INDEX], [3, 3, 1]])
def test_chance_is_the_metric_of_the_majority_baseline(labels):
    known = [label for label in labels if label != IGNORE_INDEX]
    classes, majority = len(set(known)), max(map(known.count, known)) / len(known)
    expected = {
        "accuracy": majority,
        "error_rate": 1 - majority,
        "balanced_accuracy": 1 / classes,
        "macro_f1": 2 * majority / (1 + majority) / classes,
        "auroc": 0.5,
    }
    task, baseline = Given(labels, classes=5), Majority()
    baseline.fit(task)
    assert baseline.evaluate(task, "validation") == pytest.approx(expected)
    assert {name: chance_level(name, task.labels) for name in METRICS} == pytest.approx(expected)
    for name in METRICS.keys() - {"accuracy"}:
        task.configure(metric=name)
        assert task.objective_chance == pytest.approx(expected[name])


# A task with another metric ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["f1", "word_error_rate"])
def test_an_unknown_metric_is_refused_with_the_known_ones(metric):
    with pytest.raises(ConfigError, match=r"^task: metric=.*known: accuracy, balanced_accuracy, macro_f1, auroc"):
        instantiate(Task, {"_target_": "spaces.tasks.digits.Digits", "metric": metric}, "task")


def test_a_task_with_a_metric_of_its_own_has_no_other():
    for task in (Tts(train=2, validation=2, test=2), Text(predict="next_byte", train=9, validation=9, test=9)):
        with pytest.raises(ValueError, match=f"known: {task.metric}$"):
            task.configure(metric="accuracy")
        task.configure(metric=task.metric)


def test_a_misspelt_setting_is_refused_with_the_metric_among_the_known_ones():
    with pytest.raises(ConfigError, match=r"does not take 'metrc'; it takes seed, metric$"):
        instantiate(Task, {"_target_": "spaces.tasks.digits.Digits", "metrc": "auroc"}, "task")


@pytest.mark.parametrize("metric", METRICS)
def test_the_yaml_sets_metric_direction_and_best(metric):
    task = instantiate(Task, {"_target_": "spaces.tasks.digits.Digits", "metric": metric}, "task")
    assert (task.metric, task.direction, task.best) == (metric, METRICS[metric].direction, METRICS[metric].best)
    assert Digits().metric == "accuracy", "the class has not changed"


def test_a_variant_has_the_same_metric():
    task = Patches(train=20)
    task.configure(metric="error_rate")
    variant = task.variant({"patch": 4})
    assert (variant.metric, variant.direction, variant.best) == ("error_rate", "minimize", 0.0)


def test_a_task_that_sums_is_refused_other_metrics():
    class Sums(FirstToken):
        def eval_step(self, network, batch):
            return 1, 2

    task = Sums()
    assert task.compute_metrics([(1, 2)]) == {"accuracy": 0.5}
    task.configure(metric="macro_f1")
    with pytest.raises(ValueError, match="eval_step of Sums returns no predictions"):
        task.compute_metrics([(1, 2)])


def test_the_default_metric_is_no_part_of_the_identity_of_a_study():
    def identity(**task):
        return identity_of({"precision": "32-true", "task": task, "seed": 0})["task"]

    assert identity(a=1, metric=None) == identity(a=1, metric="accuracy") == {"a": 1}
    assert identity(tasks={"b": {"metric": None}, "c": {"metric": "auroc"}}) == {
        "tasks": {"b": {}, "c": {"metric": "auroc"}}
    }


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["macro_f1", "error_rate"])
def test_a_study_has_the_metric_as_its_objective_and_logs_the_others(metric, tmp_path):
    task = FirstToken()
    task.configure(metric=metric)
    objectives = Objectives.of(task, ["latency_ms"], [1.0])
    assert (objectives.metric, objectives.direction) == (metric, METRICS[metric].direction)
    assert objectives.chance == pytest.approx(chance_level(metric, task.labels_of("validation")))
    search = replace(tiny_search(), learner=LightningLearner(task, 0, tmp_path), objectives=objectives)
    (trial,) = run_trials(tiny_study(f"sqlite:///{tmp_path}/db"), search, 1)
    assert trial.validation_metrics.keys() == trial.test_metrics.keys() - {margin_name(metric)} == METRICS.keys()
    assert trial.metric == trial.curve[-1][1] == trial.validation_metrics[metric]
    logged = {value.name: value.value for value in trial_data(trial, objectives).values}
    assert logged[f"final_{metric}"] == trial.metric
    assert {f"{split}_{name}" for split in ("validation", "test") for name in METRICS} <= logged.keys()


def test_an_svm_ranks_examples_by_their_distance_from_the_margin():
    for classes in (2, 3):
        task = Given([row % classes for row in range(12)] * 2, classes=classes)
        task.examples = lambda split, task=task: Batch(
            torch.randn(24, 1, 1, generator=torch.Generator().manual_seed(0)) + task.labels.view(-1, 1, 1),
            None,
            task.labels,
        )
        baseline = Svm("values")
        baseline.fit(task)
        logits = baseline(task.data("test"))
        assert logits.shape == (24, classes)
        assert len(logits[:, 0].unique()) > 2, "not only the predicted class is known"
        assert baseline.evaluate(task, "test")["accuracy"] > 1.3 / classes


# The hint ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "hint"),
    [
        pytest.param([3, 1], "75% of the validation examples are of class 'ham': ", id="two classes"),
        pytest.param([29, 10], None, id="two classes, below"),
        pytest.param([1, 1, 3], "60% of the validation examples are of class 'offer': ", id="three classes"),
        pytest.param([10, 10, 29], None, id="three classes, below"),
        pytest.param([5, 5, 5], None, id="balanced"),
    ],
)
def test_unbalanced_classes_give_a_hint_at_other_metrics(counts, hint):
    labels = [number for number, count in enumerate(counts) for _ in range(count)]
    task = Given(labels, classes=3, class_names=("ham", "spam", "offer"))
    lines = describe_imbalance(task)
    assert len(lines) == (hint is not None)
    assert all(line.startswith(hint) and "task.metric=balanced_accuracy" in line for line in lines)
    task.configure(metric="macro_f1")
    assert describe_imbalance(task) == []


def test_the_hint_counts_labels_of_tokens_and_leaves_out_those_without_one():
    task = Given([[1, 1, IGNORE_INDEX], [0, 1, IGNORE_INDEX]], per_token=True)
    assert describe_imbalance(task)[0].startswith("75% of the validation labels are of class 1: ")
    assert describe_imbalance(Tts(train=2, validation=2, test=2)) == []
