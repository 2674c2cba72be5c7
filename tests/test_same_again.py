"""A run that is killed, interrupted, paused and resumed gives the results of an uninterrupted one, to the bit."""

import random

import pytest
import sqlalchemy
from tiny_task import OBJECTIVES, TREE, Reports, tiny_search, tiny_study

from search.pruning.gain_rate import GainRate
from search.samplers.candidates import MAX_REJECTIONS, Pool
from search.samplers.surrogate import SurrogateSampler
from search.study.attributes import OpenTrial
from search.study.history import History
from search.study.processes import worker_name
from search.study.records import Record
from search.study.requeue import ordinals
from search.study.store import TrialStore
from search.training import checkpoint
from search.worker import work
from spaces.architecture import key
from spaces.space import Space

TRIALS = 8
SPACE = {**TREE, "train": {**TREE["train"], "epochs": 4, "lr": {"float": [0.0005, 0.03], "log": True}}}
PATIENCE = 9.0  # pauses every trial that another one at no higher cost is ahead of


class Killed(BaseException):
    """Ends a worker like SIGKILL: neither Optuna nor the worker catches it, so that nothing is written."""


def results(study):
    """What a study has found, in the order in which its trials were first started."""
    at = ordinals(study.trials)
    records = sorted(TrialStore(study).records(), key=lambda record: at[record.number])
    return [
        (at[each.number], str(each.state), each.architecture, each.curve, each.metric, each.test_metrics)
        for each in records
    ]


def once(study, folder, sampler):
    pruner = GainRate(patience=PATIENCE, first=2)
    search = tiny_search(SPACE, sampler=sampler, pruner=pruner, checkpoints=folder)
    work(TrialStore(study), search, TRIALS, Reports(), lambda trial: None, grace_s=60)


def make_stale(study):
    """As if an hour had passed."""
    with study._storage._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')"))
        connection.execute(sqlalchemy.text("UPDATE trials SET datetime_start = datetime('now', '-2 days')"))


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "resumes"), [(None, True), (SurrogateSampler(candidates=4), False)])
def test_interruptions_at_random_moments_change_nothing(tmp_path, monkeypatch, sampler, resumes):
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    whole = tiny_study(f"sqlite:///{tmp_path / 'whole.db'}")
    once(whole, tmp_path / "whole", sampler)
    assert any(state == "paused" for _, state, *_ in results(whole)), "no trial was paused"
    assert any(record.resumed for record in TrialStore(whole).records()) or not resumes, "no trial was resumed"

    write, generator, interruptions = OpenTrial.write, random.Random(0), 0

    def interrupted(self, **changes):
        if generator.random() < 0.08:
            raise generator.choice([Killed, KeyboardInterrupt])
        written = write(self, **changes)
        if generator.random() < 0.05:
            raise generator.choice([Killed, KeyboardInterrupt])
        return written

    monkeypatch.setattr(OpenTrial, "write", interrupted)
    # This process runs on, but each trial is that of one which has ended: of the same number, started at another time.
    monkeypatch.setattr("search.study.store.worker_name", lambda: f"{worker_name()}0")
    monkeypatch.setattr("search.study.attributes.MAX_TRIES", 100)
    while True:
        study = tiny_study(f"sqlite:///{tmp_path / 'interrupted.db'}")
        try:
            once(study, tmp_path / "interrupted", sampler)
            break
        except (Killed, KeyboardInterrupt):
            interruptions += 1
            make_stale(study)
    assert interruptions > 5
    assert results(study) == results(whole)


def test_the_pool_of_a_continued_run_is_that_of_one_that_goes_on():
    tree = {**TREE, "model": {**TREE["model"], "width": {"choice": [4, 8, 16]}}, "train": {**TREE["train"], "lr": 0.01}}
    space, history = Space(tree), History(OBJECTIVES)

    def pool():
        return Pool(space, lambda architecture: {"flops": 1.0}, size=3, limits={}, seed=0)

    def names(pool):
        return [key(candidate.architecture) for candidate in pool.unseen(history)]

    going_on, number = pool(), 0
    while found := names(going_on):
        assert names(pool()) == found
        chosen = going_on.unseen(history)[len(found) // 2]
        history.add(Record(number, "complete", architecture=chosen.architecture))
        number += 1
    assert number == 9, "every architecture was proposed"
    assert names(pool()) == []
    assert 50 * number / 2 < MAX_REJECTIONS


def test_the_pool_of_a_continued_run_draws_the_steps_of_two_periods_alone(monkeypatch):
    monkeypatch.setattr("search.samplers.candidates.MIN_DRAWS", 0)
    monkeypatch.setattr("search.samplers.candidates.MAX_POOL", 1)
    size, period, drawn = 3, 4, []
    tree = {**TREE, "train": {**TREE["train"], "lr": {"choice": [number / 100 for number in range(1, 11)]}}}
    space, history = Space(tree), History(OBJECTIVES)

    def counted(architecture):
        drawn.append(architecture)
        return {"flops": 1.0}

    going_on, number = Pool(space, counted, size=size, limits={}, seed=0), 0
    while found := going_on.unseen(history):
        drawn.clear()
        again = Pool(space, counted, size=size, limits={}, seed=0).unseen(history)
        assert [key(each.architecture) for each in again] == [key(each.architecture) for each in found]
        assert len(drawn) <= 2 * 2 * period * size  # at most half of them are drawn again
        history.add(Record(number, "running", architecture=found[-1].architecture))
        number += 1
    assert number > 0.8 * 60
