"""The epochs that follow from a time budget, with measured seconds that the tests set."""

import pytest
from tiny_task import TREE, Clock, TimedTask, opened, run_trials, tiny_config, tiny_search, tiny_study

from search.assemble import build_search
from search.budget.deadline import Deadline
from search.budget.epochs import TRAININGS, middle_epoch_s, plan_epochs
from search.study.store import TrialStore
from search.training.speed import epoch_seconds, middle_epoch_seconds
from spaces.space import Space


@pytest.mark.parametrize(
    ("epochs", "epoch_s", "left_s", "planned", "message"),
    [
        (9, 1.0, 9.0 * TRAININGS, 9, ""),
        (9, 1.0, 9000.0, 9, ""),  # never more than the space says
        (9, 1.0, 9.0 * TRAININGS - 1, 8, "train.epochs is 8 instead of 9, so that about 9 trainings fit into the 71 s"),
        (9, 2.0, 64.0, 5, "train.epochs is 5 instead of 9, so that about 6 trainings fit into the 64 s left"),
        (9, 2.0, 40.0, 5, "train.epochs is 5 instead of 9, so that about 4 trainings fit into the 40 s left"),
        (9, 2.0, 39.0, 4, "train.epochs is 4 instead of 9, so that about 5 trainings fit into the 39 s left"),
        (9, 30.0, 60.0, 1, "train.epochs is 1 instead of 9, so that about 2 trainings fit into the 60 s left"),
        (1, 30.0, 60.0, 1, "Only about 2 trainings fit into the 60 s left: an epoch of a middle architecture takes"),
        (9, 61.0, 60.0, 1, "No trial is likely to finish: an epoch of a middle architecture takes about 61 s, and 60"),
        (9, 61.0, 60.0, 1, "give more time (budget=...), or train on fewer examples (task.train=...), at most 12.3%"),
    ],
)
def test_epochs_are_reduced_to_what_fits_with_the_reason(epochs, epoch_s, left_s, planned, message):
    plan = plan_epochs(epochs, epoch_s, left_s)
    assert plan.epochs == planned
    assert message in plan.message
    assert bool(plan.message) == bool(message)


def test_workers_share_the_trainings():
    plan = plan_epochs(9, 1.0, 36.0, workers=2)
    assert plan == plan_epochs(9, 1.0, 72.0)
    assert plan_epochs(9, 1.0, 24.0, workers=2).message.startswith(
        "train.epochs is 6 instead of 9, so that about 8 trainings fit into the 24 s left of 2 workers"
    )


def test_a_middle_architecture_is_between_the_smallest_and_the_largest_ones():
    assert middle_epoch_s(1.0, [4.0, 100.0, 2.0]) == pytest.approx(2.0)
    assert middle_epoch_s(1.0, []) == 1.0


@pytest.mark.parametrize(("rows", "train_steps", "validation_steps"), [(64, 4, 1), (8, 1, 1), (300, 19, 3)])
def test_the_seconds_of_an_epoch_are_those_of_its_steps(rows, train_steps, validation_steps):
    clock = Clock()

    class Timed(TimedTask):
        def eval_step(self, network, batch):
            clock.seconds += 2.0
            return super().eval_step(network, batch)

    task = Timed(clock)
    task.rows = rows
    seconds = epoch_seconds(next(Space(TREE).corners()), task, clock=clock)
    assert seconds == train_steps * 1.0 + validation_steps * 2.0


@pytest.mark.parametrize(("limit_s", "timed"), [(0.0, 2), (6.0, 2), (100.0, 3)])
def test_speed_is_measured_on_the_smallest_and_the_largest_networks_within_a_limit(monkeypatch, limit_s, timed):
    clock, widths = Clock(), []

    def measured(architecture, task, *, seed, clock, device):
        clock.seconds += 4.0
        widths.append(architecture["model"]["width"])
        return float(widths[-1])

    monkeypatch.setattr("search.training.speed.epoch_seconds", measured)
    seconds = middle_epoch_seconds(Space(TREE), TimedTask(clock), seed=0, limit_s=limit_s, clock=clock)
    assert widths == [4, 8, 8][:timed]
    assert seconds == pytest.approx(32**0.5)


@pytest.fixture
def epochs(tmp_path, monkeypatch):
    """Open a study with a budget, or continue it; returns the epochs of its space and the notes."""

    def opened_with(budget_s, epoch_s, **changes):
        monkeypatch.setattr("search.training.speed.epoch_seconds", lambda *_, **__: epoch_s)
        config = {**tiny_config(tmp_path), **changes}
        deadline = Deadline(budget_s, clock=Clock())
        built = build_search(config, Space(config["space"]), [], deadline=deadline)
        opened.append(built.store.study._storage._backend)
        return built.search.space.train["epochs"], built.notes

    return opened_with


FOREVER = float("inf")


@pytest.mark.slow
def test_a_continued_study_keeps_its_epochs(epochs):
    first, notes = epochs(32.0, 2.0)
    assert (first, len(notes)) == (2, 1)
    for budget_s, epoch_s in [(FOREVER, 1.0), (320.0, 2.0), (32.0, 20.0)]:
        assert epochs(budget_s, epoch_s) == (
            2,
            ["train.epochs is 2 instead of 3, as in the trials that the study has."],
        )


@pytest.mark.slow
@pytest.mark.parametrize(("budget_s", "epoch_s"), [(FOREVER, 1000.0), (TRAININGS * 6.0, 2.0)])
def test_a_study_that_began_with_all_its_epochs_keeps_them(epochs, budget_s, epoch_s):
    assert epochs(budget_s, epoch_s) == (3, [])
    assert epochs(1.0, 1000.0) == (3, [])


@pytest.mark.slow
def test_a_study_of_trials_without_stored_epochs_keeps_those_of_the_space(tmp_path):
    study = tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")
    run_trials(study, tiny_search(), 1)
    assert TrialStore(study).epochs(lambda: 1) is None


def test_searched_epochs_are_not_changed(epochs):
    choice = {"choice": [2, 3]}
    assert epochs(1.0, 1000.0, space={**TREE, "train": {**TREE["train"], "epochs": choice}}) == (choice, [])


def test_a_network_that_cannot_be_trained_does_not_end_the_run(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("test error")

    monkeypatch.setattr("search.training.speed.epoch_seconds", fails)
    built = build_search(tiny_config(tmp_path), Space(TREE), [], deadline=Deadline(1.0, clock=Clock()))
    opened.append(built.store.study._storage._backend)
    assert (built.search.space.train["epochs"], built.notes) == (TREE["train"]["epochs"], [])
