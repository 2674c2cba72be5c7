"""Confirming a front: repeated trainings are stored and resumed, and their statistics."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_task import OBJECTIVES, TREE, FirstToken, close_opened, run_trials, tiny_search, tiny_study

from search.confirm import command, training
from search.confirm.command import setting_of
from search.confirm.statistics import confirmed
from search.confirm.training import Setting, repeat, train
from search.front import main
from search.report.figure import draw
from search.report.intervals import Sample, samples
from search.study.confirmations import Repetition, read_repetitions, write_repetition
from search.study.records import Objectives, Record, State, front
from search.study.store import TrialStore
from search.training.device import Device

ERRORS = Objectives("error_rate", "minimize", ("latency_ms",), chance=1.0, best=0.0, ceilings=(1.0,))


def member(number, metric, latency_ms):
    return Record(number, State.COMPLETE, {"latency_ms": latency_ms}, metric=metric)


def repeated(*values, metric="accuracy", test=None):
    return {seed: Repetition({metric: value}, {metric: test or value}) for seed, value in enumerate(values)}


def statistics(members, repetitions, objectives=OBJECTIVES):
    return {each.record.number: each for each in confirmed(members, repetitions, objectives)}


@pytest.mark.slow
def test_intervals_hold_the_mean_and_a_further_value_as_often_as_they_claim():
    generator = np.random.default_rng(0)
    means, further = [], []
    for values in generator.standard_normal((4000, 6)):
        sample = Sample(tuple(values[:5]))
        means.append(abs(sample.mean) <= sample.margin)
        further.append(values[5] <= sample.mean + sample.reach)
    assert np.mean(means) == pytest.approx(0.95, abs=0.012)
    assert np.mean(further) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("objectives", "lucky", "typical"), [(OBJECTIVES, 0.95, 0.81), (ERRORS, 0.05, 0.19)], ids=["accuracy", "error"]
)
def test_a_member_is_lucky_if_it_was_far_better_than_its_repetitions(objectives, lucky, typical):
    values = [0.8, 0.81, 0.79, 0.8] if objectives is OBJECTIVES else [0.2, 0.21, 0.19, 0.2]
    repetitions = {number: repeated(*values, metric=objectives.metric) for number in (0, 1, 2)}
    members = [member(0, lucky, 1.0), member(1, typical, 2.0), member(2, 1 - lucky, 3.0)]
    found = statistics(members, repetitions, objectives)
    assert [found[number].is_lucky for number in range(3)] == [True, False, False]


def test_a_member_is_tied_with_the_cheapest_that_it_is_not_significantly_better_than():
    repetitions = {
        0: repeated(0.5, 0.51, 0.49),
        1: repeated(0.8, 0.81, 0.79),
        2: repeated(0.8, 0.82, 0.8),
        3: repeated(0.9, 0.9, 0.9),
        4: repeated(0.9, 0.9, 0.9),
    }
    found = statistics([member(number, 0.5, 1.0 + number) for number in range(5)], repetitions)
    assert [found[number].tied_with for number in range(5)] == [None, None, 1, None, 3]
    assert [found[number].on_front for number in range(5)] == [True, True, True, True, False]


def test_members_with_a_single_repetition_or_undefined_metrics_are_left_out():
    repetitions = {0: repeated(0.5), 1: repeated(0.5, math.nan), 2: repeated(0.5, 0.6, test=math.nan)}
    found = statistics([member(number, 0.5, 1.0) for number in range(4)], repetitions)
    assert list(found) == [2]
    assert found[2].test is None


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    identity = {"space": TREE, "task": {"_target_": "tiny_task.FirstToken"}, "costs": ["latency_ms"], "seed": 0}
    study = tiny_study(f"sqlite:///{tmp_path / 'paretoformer.db'}", identity=identity)
    study.set_user_attr("ceilings", [1.0])
    run_trials(study, tiny_search(checkpoints=tmp_path), 3)
    return study


@pytest.mark.slow
def test_repetitions_are_stored_by_trial_and_seed(study):
    given = {(3, 12): Repetition({"a": 0.5}, {"a": 0.25}), (3, 2): Repetition({"a": 1.0}, {})}
    for (number, seed), repetition in given.items():
        write_repetition(study, number, seed, repetition)
    assert read_repetitions(study) == {3: {2: given[3, 2], 12: given[3, 12]}}


@pytest.mark.slow
def test_the_seed_of_the_study_gives_the_metrics_of_the_search(study):
    for record in TrialStore(study).records():
        repetition = train(dict(record.architecture), Setting(FirstToken(), Device()), seed=0)
        assert repetition.validation == pytest.approx(record.validation_metrics)
        assert repetition.test == pytest.approx(record.test_metrics)


@pytest.mark.slow
def test_the_command_trains_what_is_missing_and_prints_the_verdict(study, capsys, monkeypatch):
    records = TrialStore(study).records()
    members = [each.number for each in front(records, OBJECTIVES)]
    trained = []

    def counted(architecture, setting, *, seed):
        trained.append(seed)
        if len(trained) == len(members) + 1:
            raise KeyboardInterrupt
        return train(architecture, setting, seed=seed)

    monkeypatch.setattr(command, "cores", lambda: 1)
    monkeypatch.setattr(training, "train", counted)
    assert main(["tiny", "--confirm", "3"]) == 130
    assert trained == [1] * len(members) + [2]
    monkeypatch.setattr(training, "train", train)
    capsys.readouterr()
    assert main(["tiny", "--confirm", "2"]) == 0
    out = capsys.readouterr().out
    assert f"{len(members)} are stored already" in out
    assert "Lucky in the search" in out
    assert "The front of the means: " in out
    close_opened()
    found = read_repetitions(study)
    assert {number: list(by_seed) for number, by_seed in found.items()} == {number: [1, 2] for number in members}
    assert [each.state for each in TrialStore(study).records()] == [each.state for each in records]


@pytest.mark.slow
def test_two_processes_give_the_results_of_one_and_each_training_is_stored_once(study):
    members, seen = TrialStore(study).records(), []
    prepare = partial(setting_of, f"sqlite:///{Path('paretoformer.db').absolute()}", "tiny")
    repeat(study, members, prepare, seed=0, count=2, processes=2, report=lambda *each: seen.append(each[:2]))
    assert sorted(seen) == sorted((member.number, seed) for member in members for seed in (1, 2))
    for member in members:
        for seed, repetition in read_repetitions(study)[member.number].items():
            assert train(dict(member.architecture), Setting(FirstToken(), Device()), seed=seed) == repetition


def test_the_plot_has_bars_for_members_that_were_trained_again():
    members = [
        replace(member(number, 0.5 + 0.1 * number, 1.0 + number), architecture={"pattern": ["softmax"]})
        for number in range(2)
    ]
    found = samples({1: repeated(0.5, 0.7), 0: repeated(0.5)}, OBJECTIVES)
    assert set(found) == {1}, "a single training has no interval"
    (axes,) = draw(members, OBJECTIVES, title="x", repeated=found).axes
    (bar,) = axes.containers
    (segment,) = bar.lines[2][0].get_segments()
    np.testing.assert_allclose(segment, [[2.0, 0.6 - found[1].margin], [2.0, 0.6 + found[1].margin]])
    assert not draw(members, OBJECTIVES, title="x").axes[0].containers


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), [(["tiny", "--confirm", "1"], "it must be at least 2")])
def test_a_single_repetition_is_refused(study, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("nothing.db").exists()
