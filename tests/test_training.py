"""Training of one network: learning, reproducibility, checkpoints, and the thread of the fit."""

import functools
import math
import threading
import time
from dataclasses import replace

import pytest
import torch
from tiny_task import TREE, FirstToken
from torch.optim.optimizer import register_optimizer_step_post_hook

from search.study.records import Record
from search.training.evaluation import evaluate_split
from search.training.fit import LightningFit
from search.training.learner import LightningLearner
from search.training.module import EpochLoader, parameter_groups
from search.training.settings import TrainSettings
from spaces.build import build
from spaces.space import Space

ARCHITECTURE = list(Space(TREE).corners())[-1]
SETTINGS = TrainSettings(epochs=4, batch_size=16, lr=0.03)


def fit(settings=SETTINGS, *, seed=0, stop_after=math.inf, task=None):
    task = task or FirstToken()
    network = build(ARCHITECTURE, task, seed=seed)
    curve = []
    with LightningFit(network, task, settings, seed=seed) as training:
        for epoch, metric in training:
            curve.append((epoch, metric))
            if epoch >= stop_after:
                break
    return network, curve


@functools.cache
def uninterrupted():
    """The network and learning curve of a whole training."""
    return fit()


def test_a_network_learns_and_is_evaluated_after_every_epoch():
    network, curve = uninterrupted()
    assert [epoch for epoch, _ in curve] == [1, 2, 3, 4]
    assert curve[-1][1] > 0.6 > FirstToken().chance
    assert evaluate_split(network, FirstToken(), "validation")["accuracy"] == pytest.approx(curve[-1][1])


def test_the_same_seed_gives_the_same_curve():
    assert fit()[1] == uninterrupted()[1]
    assert fit(seed=1)[1] != uninterrupted()[1]


def test_a_learning_curve_does_not_depend_on_early_stopping():
    assert fit(stop_after=2)[1] == uninterrupted()[1][:2]


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_a_resumed_training_equals_an_uninterrupted_one(dropout, tmp_path):
    tree = {**TREE, "model": {**TREE["model"], "dropout": dropout}}
    architecture, task = list(Space(tree).corners())[-1], FirstToken()
    settings = TrainSettings(epochs=5, batch_size=16, lr=0.03, warmup=0.5)
    whole = build(architecture, task, seed=0)
    with LightningFit(whole, task, settings, seed=3) as training:
        curve = []
        for epoch, metric in training:
            curve.append((epoch, metric))
            if epoch in (2, 4):
                torch.save(training.state_dict(), tmp_path / f"{epoch}.pt")
    for epoch in (2, 4):
        network = build(architecture, task, seed=9)  # other initial weights: the checkpoint replaces them
        with LightningFit(network, task, settings, seed=3, checkpoint=tmp_path / f"{epoch}.pt") as training:
            assert list(training) == curve[epoch:]
        for name, weights in whole.state_dict().items():
            assert torch.equal(weights, network.state_dict()[name]), name


def test_matrices_are_decayed_and_biases_and_gains_are_not():
    network = build(ARCHITECTURE, FirstToken())
    before = {name: weights.detach().clone() for name, weights in network.named_parameters()}
    for weights in network.parameters():
        weights.grad = torch.zeros_like(weights)
    torch.optim.AdamW(parameter_groups(network, 0.5), lr=0.1).step()
    kept = {name for name, weights in network.named_parameters() if torch.equal(weights, before[name])}
    assert kept >= {name for name, weights in before.items() if weights.dim() < 2}
    for name, weights in network.named_parameters():
        torch.testing.assert_close(weights.detach(), before[name] * (1 - 0.1 * 0.5 * (weights.dim() > 1)))


def test_a_training_of_version_0_2_whose_optimizer_has_one_group_goes_on_as_it_began(monkeypatch, tmp_path):
    settings = replace(SETTINGS, weight_decay=0.5)

    def one_group(network, _):
        return [{"params": list(network.parameters()), "weight_decay": settings.weight_decay}]

    whole = build(ARCHITECTURE, FirstToken())
    with monkeypatch.context() as patch:
        patch.setattr("search.training.module.parameter_groups", one_group)
        with LightningFit(whole, FirstToken(), settings, seed=0) as training:
            for epoch, _ in training:
                if epoch == 2:
                    torch.save(training.state_dict(), tmp_path / "2.pt")
    network = build(ARCHITECTURE, FirstToken(), seed=9)
    with LightningFit(network, FirstToken(), settings, seed=0, checkpoint=tmp_path / "2.pt") as training:
        list(training)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, network.state_dict()[name]), name


def test_data_loading_does_not_count_as_time_of_the_model(tmp_path):
    class Slow(FirstToken):
        def batches(self, split, batch_size, *, shuffle=None):
            for batch in super().batches(split, batch_size, shuffle=shuffle):
                busy = time.thread_time() + 0.02
                while time.thread_time() < busy:
                    pass
                yield batch

    settings, shares = TrainSettings(epochs=1, batch_size=16, lr=0.03), []
    for task in (FirstToken(), Slow()):
        with LightningFit(build(ARCHITECTURE, task), task, settings, seed=0) as training:
            list(training)
        assert 0 < training.model_s < training.cpu_s
        shares.append(training.model_s / training.cpu_s)
    assert shares[1] < shares[0] / 2
    trainings = [LightningLearner(task, 0, tmp_path).train(TRIAL, resume=False) for task in (FirstToken(), Slow())]
    for training in trainings:
        with training:
            next(iter(training))
    assert trainings[0].overhead < trainings[1].overhead < 1


def test_leaving_the_context_ends_the_thread():
    fit(stop_after=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "training"]


def test_an_error_in_training_is_raised_in_the_caller():
    class Broken(FirstToken):
        def loss(self, logits, batch):
            raise RuntimeError("loss failed")

    with pytest.raises(RuntimeError, match="loss failed"):
        fit(task=Broken())
    assert not [thread for thread in threading.enumerate() if thread.name == "training"]


def test_an_interrupt_ends_the_thread_and_is_raised():
    def interrupt():
        with LightningFit(build(ARCHITECTURE, FirstToken()), FirstToken(), SETTINGS, seed=0) as training:
            next(iter(training))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not [thread for thread in threading.enumerate() if thread.name == "training"]


def test_the_global_random_state_is_unchanged():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit(stop_after=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_short_last_batch_is_weighted_by_its_examples():
    task = FirstToken(rows=33)
    network, curve = fit(task=task, stop_after=1)
    batch = task.examples("validation")
    with torch.inference_mode():
        exact = (network.eval()(batch).argmax(-1) == batch.labels).double().mean().item()
    assert curve[-1][1] == pytest.approx(exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0: it must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size=0: it must be a whole number from 1"),
        ({"batch_size": 2.5}, "batch_size=2.5: it must be a whole number from 1"),
        ({"lr": 0.0}, "lr=0.0: it must be above 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"clip": 0.0}, "clip=0.0"),
    ],
)
def test_invalid_settings_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**{"epochs": 1, "batch_size": 1, "lr": 0.1, **change})


def test_each_epoch_has_its_own_order_of_examples_also_when_resumed():
    def epoch(loader):
        return torch.cat([batch.inputs for batch in loader])

    loader = EpochLoader(FirstToken(), "train", 16, shuffle=0)
    first, second = epoch(loader), epoch(loader)
    assert not torch.equal(first, second)
    assert torch.equal(second, epoch(EpochLoader(FirstToken(), "train", 16, shuffle=0, epochs_done=1)))


TRIAL = Record(0, "running", architecture=ARCHITECTURE)


@pytest.fixture
def paused(tmp_path):
    """A learner with the checkpoint of a trial that was paused after its first epoch, and the trial that resumes it."""
    learner = LightningLearner(FirstToken(), 0, tmp_path)
    with learner.train(TRIAL, resume=False) as training:
        epoch, metric, _ = next(iter(training))
        training.save()
    return learner, replace(TRIAL, curve=[(epoch, metric)], cpu_seconds=[100.0])


def test_the_cpu_seconds_of_a_resumed_trial_include_those_before_it_was_paused(paused):
    learner, resumed = paused
    with learner.train(resumed, resume=True) as training:
        seconds = [epoch.cpu_s for epoch in training]
    assert 100 < seconds[0] < seconds[1]


def test_the_checkpoint_is_kept_until_it_is_discarded(paused):
    learner, resumed = paused

    def interrupt():
        with learner.train(resumed, resume=True) as training:
            next(iter(training))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert learner.saved_epochs(resumed) == 1
    learner.discard(resumed.number)
    assert learner.saved_epochs(resumed) == 0


def test_test_metrics_are_those_of_the_test_split(tmp_path):
    class UnknownTestLabels(FirstToken):
        def examples(self, split):
            batch = super().examples(split)
            return batch._replace(labels=torch.full_like(batch.labels, 3)) if split == "test" else batch

    with LightningLearner(UnknownTestLabels(), 0, tmp_path).train(TRIAL, resume=False) as training:
        assert all(epoch.metric > 0 for epoch in training)
        assert training.evaluate("test")["accuracy"] == 0


def test_gradients_are_clipped_to_the_maximum_norm():
    norms = []

    def add_norm(optimizer, *_):
        norms.append(
            torch.nn.utils.get_total_norm([p.grad for group in optimizer.param_groups for p in group["params"]]).item()
        )

    hook = register_optimizer_step_post_hook(add_norm)
    try:
        fit(replace(SETTINGS, clip=0.01), stop_after=1)
    finally:
        hook.remove()
    assert len(norms) == 4
    assert max(norms) == pytest.approx(0.01, rel=1e-3)
