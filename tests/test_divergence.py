"""Trials whose numbers are useless are pruned with the reason; an exception of the task is shown as it is."""

import math

import pytest
import torch
from tiny_task import TREE, FirstToken, run_trials, tiny_search, tiny_study

from search.report.explain import explain
from search.study.records import front
from search.study.store import TrialStore
from search.training.divergence import DivergenceError, FiniteChecks, check_metric, reason_to_prune
from spaces.models.encoder import Encoder

NAN, INF = math.nan, math.inf
ALLOCATOR = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes."


class NanInEvaluation(Encoder):
    """Its logits are NaN where it is evaluated."""

    def forward(self, batch):
        logits = super().forward(batch)
        return logits if self.training else logits * NAN


class Faulty(FirstToken):
    """A task with a fault: its loss is offset, its metric replaced, or something raised."""

    def __init__(self, *, offset=None, metric=None, raises=None, where="loss"):
        super().__init__()
        self.offset, self.replaced, self.raises, self.where = offset, metric, raises, where

    def fail(self, where):
        if self.raises and where == self.where:
            raise self.raises

    def loss(self, logits, batch):
        self.fail("loss")
        loss = super().loss(logits, batch)
        return loss if self.offset is None else loss * 0 + self.offset

    def batches(self, split, batch_size, *, shuffle=None):
        self.fail("batches")
        return super().batches(split, batch_size, shuffle=shuffle)

    def compute_metrics(self, outputs):
        metrics = super().compute_metrics(outputs)
        return metrics if self.replaced is None else {**metrics, **self.replaced}


def model(**changes):
    return {**TREE, "model": {**TREE["model"], **changes}}


def train(**changes):
    return {**TREE, "train": {**TREE["train"], **changes}}


USELESS = {
    "weights": (train(lr=1.0, weight_decay=1e30), {}, "after 0 epochs: the training loss is nan"),
    "loss": (TREE, {"offset": NAN}, "after 0 epochs: the training loss is nan"),
    "infinite loss with finite gradients": (TREE, {"offset": INF}, "after 0 epochs: the training loss is inf"),
    "logits": (model(_target_="test_divergence.NanInEvaluation"), {}, "after 0 epochs: logits are NaN or infinite"),
    "metric": (TREE, {"metric": {"accuracy": NAN}}, "after 0 epochs: accuracy is nan"),
    "infinite metric": (TREE, {"metric": {"accuracy": -INF}}, "after 0 epochs: accuracy is -inf"),
    "metric as text": (TREE, {"metric": {"accuracy": "0.5"}}, "after 0 epochs: accuracy is '0.5', which is no number"),
    "no metric": (TREE, {"metric": {"accuracy": [1]}}, "after 0 epochs: accuracy is [1], which is no number"),
    "second metric": (TREE, {"metric": {"f1": "high"}}, "after 3 epochs: f1 is 'high', which is no number"),
    "memory": (TREE, {"raises": MemoryError()}, "after 0 epochs: out of memory: MemoryError"),
    "allocator": (TREE, {"raises": RuntimeError(ALLOCATOR)}, f"after 0 epochs: out of memory: {ALLOCATOR}"),
    "gpu": (
        TREE,
        {"raises": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")},
        "after 0 epochs: out of memory: CUDA out of memory. Tried to allocate 2 GiB.",
    ),
}


CASES = [
    # Three failed trials in a row would end the run; four of these do not.
    pytest.param(case, 4 if case in ("weights", "memory") else 1, id=case, marks=[pytest.mark.slow] if at > 1 else [])
    for at, case in enumerate(USELESS)
]


@pytest.mark.parametrize(("case", "count"), CASES)
def test_a_trial_with_useless_numbers_is_pruned_with_the_reason(tmp_path, case, count):
    tree, fault, reason = USELESS[case]
    study, search = tiny_study(f"sqlite:///{tmp_path / 'studies.db'}"), tiny_search(tree, task=Faulty(**fault))
    trials = run_trials(study, search, count)
    assert [(trial.state, trial.reason) for trial in trials] == [("pruned", reason)] * len(trials)
    assert len(trials) == count, "such trials count, so that the run ends"
    assert len({str(trial.architecture) for trial in trials}) == count
    assert all(trial.constraints["unusable"] > 0 for trial in study.trials if trial.constraints)
    assert front(trials, search.objectives) == []


def test_a_useful_training_is_not_pruned(tmp_path):
    study = tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")
    task = Faulty(metric={"f1": NAN, "auroc": torch.tensor(0.5)})
    (trial,) = run_trials(study, tiny_search(task=task), 1)
    assert (trial.state, trial.validation_metrics["auroc"]) == ("complete", 0.5)
    assert math.isnan(trial.validation_metrics["f1"]), "a metric beside the objective may be undefined"


@pytest.mark.parametrize("where", ["loss", pytest.param("batches", marks=pytest.mark.slow)])
def test_an_exception_of_the_task_is_shown_as_it_is_with_its_traceback(tmp_path, where):
    study = tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")
    search = tiny_search(task=Faulty(raises=KeyError("no such column: 'text'"), where=where))
    store = TrialStore(study)
    with pytest.raises(Exception, match=r"3 trials in a row failed; the last one: KeyError: .*no such column"):
        run_trials(study, search, 9)
    records = store.all_records()
    assert [record.state for record in records.values()] == ["failed"] * 3
    lines = list(explain(2, records, {}, search.objectives, []))
    assert "  reason        KeyError: \"no such column: 'text'\"" in lines
    assert any(line.strip().startswith("File ") and "test_divergence.py" in line for line in lines)


def test_checks_look_at_everything_once():
    network, checks = torch.nn.Linear(2, 2), FiniteChecks()
    checks.check(network)
    masked = torch.tensor([0.0, -INF])
    checks.add_logits(network, (), {"a": masked, "b": (masked, [torch.tensor([1])]), "c": "text", "d": None})
    checks.check(network)
    for output in (torch.tensor([INF]), {"a": (masked, torch.tensor([NAN]))}):
        checks.add_logits(network, (), output)
        with pytest.raises(DivergenceError, match="logits"):
            checks.check(network)
        checks.check(network)
    network.bias.data[1] = NAN
    with pytest.raises(DivergenceError, match="weights"):
        checks.check(network)


@pytest.mark.parametrize("value", [1, 0.5, torch.tensor(0.5), torch.tensor(2)])
def test_numbers_of_any_type_are_metrics(value):
    assert check_metric("accuracy", value) == float(value)


@pytest.mark.parametrize("value", [None, True, "1", b"1", [1.0], 1j, torch.ones(2)])
def test_other_values_are_no_metrics(value):
    with pytest.raises(DivergenceError, match=r"accuracy is .*, which is no number"):
        check_metric("accuracy", value)


def test_other_errors_are_not_the_fault_of_the_architecture():
    assert [reason_to_prune(error) for error in (ValueError("out of memory"), RuntimeError("shape"))] == ["", ""]
