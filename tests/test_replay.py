"""Recorded tables and searches replayed over them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import optuna
import pytest
from csv_files import FINITE, table
from tiny_task import run_trials, tiny_search, tiny_study

from search.compare import STRATEGIES, strategy
from search.pareto import non_dominated
from search.replay.learner import TableLearner
from search.replay.simulation import Replay, Strategy
from search.replay.table import read, write
from search.replay.tables import shipped
from search.study.records import Record
from search.study.store import TrialStore
from search.tables import build_table
from spaces.architecture import key
from spaces.dimensions import ConfigError
from spaces.space import Space

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
TABLE = table()
TOTAL = sum(6 * seconds for seconds in TABLE.seconds)


def play(name, seed=0, *, workers=1, until=1.0, made=TABLE):
    return Replay(made, Strategy(name, **strategy(name)), seed=seed, workers=workers).run(until)


@pytest.mark.parametrize(
    "name",
    [
        "random+none",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("tpe+none", "nsga2+none", "surrogate+none")),
        "surrogate+gain_rate",
    ],
)
def test_a_strategy_that_loses_nothing_reaches_everything_and_trains_nothing_twice(name):
    outcome = play(name)
    assert outcome.trace[-1][2] == pytest.approx(1.0)
    assert outcome.trace[-1][1] <= 6 * len(TABLE.architectures)
    assert outcome.trace[-1][0] <= TOTAL + outcome.own_s + 1e-6
    assert outcome.lost == 0


def test_time_is_the_seconds_of_the_epochs_that_were_trained_and_the_strategys_own():
    outcome = play("cheapest")
    rows = sorted(range(len(TABLE.costs)), key=lambda row: TABLE.costs[row]["flops"])
    ends = np.cumsum([6 * TABLE.seconds[row] for row in rows])
    for seconds, epochs, _ in outcome.trace:
        assert epochs % 6 == 0
        assert 0 <= seconds - ends[epochs // 6 - 1] <= outcome.own_s + 1e-6


def test_a_recorded_training_goes_on_after_the_epochs_already_trained():
    trial = Record(0, "running", curve=[(1, 0.1), (2, 0.2)], architecture=TABLE.architectures[3])
    with TableLearner(TABLE, world=1).train(trial, resume=True) as training:
        epochs = list(training)
    curve = list(enumerate(TABLE.curves[1][3], start=1))
    assert [(epoch, metric) for epoch, metric, _ in epochs] == curve[2:]
    assert [epoch.cpu_s for epoch in epochs] == pytest.approx([TABLE.seconds[3] * epoch for epoch, _ in curve[2:]])


@pytest.mark.slow
def test_the_oracle_trains_the_true_front_alone():
    outcome = play("oracle")
    points = np.column_stack([-TABLE.finals(0), [each["latency_ms"] for each in TABLE.costs]])
    assert outcome.trace[-1][1] == 6 * non_dominated(points).sum()
    assert outcome.reached(0.99) < min(play(name).reached(0.99) for name in ("random+none", "surrogate+gain_rate"))


def test_the_share_of_hypervolume_is_that_of_an_obvious_reference():
    """By counting a fine grid of cells."""
    replay = Replay(TABLE, Strategy("x", **strategy("random+none")), seed=1)
    ceiling = replay.objectives.ceilings[0]
    latencies = np.linspace(0, ceiling, 4001)[:-1] + ceiling / 8000
    costs, finals = np.array([each["latency_ms"] for each in TABLE.costs]), TABLE.finals(1)
    best = [max([0.3, *finals[costs <= latency]]) - 0.3 for latency in latencies]
    assert replay.best == pytest.approx(np.mean(best) / 0.7, abs=2e-3)


@pytest.mark.slow
def test_the_same_seed_decides_the_same_and_other_seeds_and_worlds_differ():
    def epochs(seed):
        return [entry[1:] for entry in play("surrogate+gain_rate", seed, until=0.99).trace]

    assert epochs(3) == epochs(3)
    assert epochs(3) != epochs(5)  # another seed in the same world
    assert play("random+none", 0).trace[-1][2] == pytest.approx(play("random+none", 1).trace[-1][2])


def test_several_workers_need_less_time_and_find_the_same():
    alone, four = play("random+gain_rate", 2, until=0.99), play("random+gain_rate", 2, workers=4, until=0.99)
    assert four.reached(0.99) < alone.reached(0.99)


@pytest.mark.slow
def test_what_a_rule_without_resume_stops_for_good_is_counted():
    # Curves that cross: the best ones start worst.
    late = dataclasses.replace(
        TABLE, curves=[[[1 - curve[-1]] * 5 + [curve[-1]] for curve in world] for world in TABLE.curves]
    )
    outcome = play("tpe+i_epoch", made=late)
    assert outcome.lost > 0
    assert math.isinf(outcome.reached(0.999))
    assert play("surrogate+none", made=late).lost == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs(name):
    outcome = play(name, until=0.9)
    assert outcome.trace
    assert all(a[0] < b[0] and a[2] < b[2] for a, b in zip(outcome.trace, outcome.trace[1:], strict=False))


def test_a_table_survives_its_file_and_equal_tables_give_equal_bytes(tmp_path):
    for name in ("a.json.gz", "b.json.gz"):
        write(TABLE, tmp_path / name)
    again = read(tmp_path / "a.json.gz")
    assert [key(each) for each in again.architectures] == [key(each) for each in TABLE.architectures]
    assert np.array_equal(again.curves, TABLE.curves)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    (tmp_path / "c.json.gz").write_text("no table")
    for name, message in (("c.json.gz", "no recorded table"), ("d.json.gz", "no such file")):
        with pytest.raises(ConfigError, match=f"{name}: {message}"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_table_holds_every_architecture_of_its_space_in_at_least_two_worlds(name):
    recorded = read(shipped()[name])
    space = Space(recorded.space)
    grid = {key(space.suggest(optuna.trial.FixedTrial(each))) for each in space.grid()}
    assert {key(each) for each in recorded.architectures} == grid
    assert len(recorded.curves) >= 2
    assert {len(curve) for world in recorded.curves for curve in world} == {9}
    assert min(recorded.seconds) > 0
    assert all(each["latency_ms"] > 0 for each in recorded.costs)


@pytest.mark.slow
def test_a_table_is_built_from_studies_with_different_seeds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = {**FINITE, "train": {**FINITE["train"], "epochs": 2, "lr": 0.01}}
    tree["model"] = {**tree["model"], "width": 4, "depth": 1}
    task = {"_target_": "tiny_task.FirstToken"}
    stores = []
    for seed in (0, 1):
        identity = {"space": tree, "task": task, "seed": seed}
        study = tiny_study("sqlite:///studies.db", name=f"s-{seed}", seed=seed, identity=identity)
        search = tiny_search(tree, seed=seed)
        for parameters in search.space.grid():
            study.enqueue_trial(parameters)
        run_trials(study, search, 4)
        stores.append(TrialStore(study))
    made = build_table("made", stores)
    assert len(made.architectures) == 4
    assert np.array(made.curves).shape == (2, 4, 2)
    assert made.curves[0] != made.curves[1]
    assert len({each["latency_ms"] for each in made.costs}) == 4  # measured, each network by itself
    other = tiny_study("sqlite:///studies.db", name="other", identity={"space": {}, "task": task, "seed": 0})
    with pytest.raises(ConfigError, match="differ in more than the seed"):
        build_table("made", [stores[0], TrialStore(other)])
