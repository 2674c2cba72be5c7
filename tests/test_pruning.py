"""Properties of all pruning rules: one table of rules, one test for each property, the exceptions in the table."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import search.pruning
from search.pruning import Pruner
from search.pruning.__main__ import main, rules
from search.pruning.accuracy_only import AccuracyOnly
from search.pruning.ceiling import Ceiling
from search.pruning.gain_rate import GainRate
from search.pruning.i_epoch import IEpoch
from search.pruning.latency_conditional import LatencyConditional
from search.pruning.moasha import MoAsha, among_best, cheapest
from search.pruning.none import NoPruner
from search.pruning.optimistic import Optimistic
from search.study.history import History
from search.study.records import Objectives, Record, Stop

COSTS = ("latency_ms", "parameters", "memory_mb")
YAMLS = Path(__file__).parents[1] / "conf" / "pruner"
INF, NAN = float("inf"), float("nan")


@dataclass(frozen=True)
class Rule:
    """A row: a rule, some epochs at which it compares trials, and the properties it lacks, each with the reason."""

    name: str
    pruner: Pruner
    epochs: tuple[int, ...]
    lacks: Mapping[str, str] = field(default_factory=dict)


NO_HALVING = "it is no successive halving: any number of trials go on"
RULES = [
    Rule(
        "none",
        NoPruner(),
        epochs=(1, 9),
        lacks={"stops_the_dominated": "it stops no trial", "halves": NO_HALVING},
    ),
    Rule(
        "moasha",
        MoAsha(eta=3, min_epochs=1),
        epochs=(1, 3, 9),
        lacks={"keeps_under_monotone_scales": "crowding distances change under non-affine scales"},
    ),
    Rule(
        "latency_conditional",
        LatencyConditional(beaters=2, slack=0.0, min_epochs=1),
        epochs=(1, 2, 9),
        lacks={"halves": NO_HALVING},
    ),
    Rule("i_epoch", IEpoch(epoch=3), epochs=(3,), lacks={"halves": NO_HALVING}),
    Rule(
        "accuracy_only",
        AccuracyOnly(eta=3, min_epochs=1),
        epochs=(1, 3, 9),
        lacks={"keeps_the_cheapest": "it ignores costs, being the negative control"},
    ),
    Rule(
        "optimistic",
        Optimistic(quantile=0.9, neighbours=3, min_epochs=1),
        epochs=(1, 2, 9),
        lacks={
            "halves": NO_HALVING,
            "keeps_under_monotone_scales": "gains are differences, which change under non-affine scales",
            "ignores_final_states": "gains are read from complete trials",
        },
    ),
    Rule(
        "ceiling",
        Ceiling(target=None),
        epochs=(1, 9),
        lacks={
            "stops_the_dominated": "it stops only once the target is reached",
            "halves": NO_HALVING,
            "keeps_under_affine_scales": "the target is not rescaled with the metric",
            "keeps_under_monotone_scales": "the target is not rescaled with the metric",
            "ignores_final_states": "only complete trials can reach the target",
        },
    ),
    Rule(
        "gain_rate",
        GainRate(patience=0.5, first=2, target=None),
        epochs=(1, 2, 9),
        lacks={
            "halves": NO_HALVING,
            "keeps_under_affine_scales": "hypervolume is a share of a box that is not rescaled with the objectives",
            "keeps_under_monotone_scales": "hypervolume is a share of a box that is not rescaled with the objectives",
            "ignores_final_states": "gains are read from complete trials",
        },
    ),
]


def every_rule_that(property_name="must"):
    return pytest.mark.parametrize(
        "rule", [pytest.param(rule, id=rule.name) for rule in RULES if property_name not in rule.lacks]
    )


def objectives(costs=1, direction="maximize"):
    best = 1.0 if direction == "maximize" else -1.0
    return Objectives(
        metric="accuracy", direction=direction, costs=COSTS[:costs], chance=0.0, best=best, ceilings=(9.0,) * costs
    )


def study(points, epoch):
    """Records in different states whose last metric and costs are the rows ``(accuracy, *costs)`` of ``points``."""
    states = ["complete", "pruned", "running", "failed"]
    return [
        Record(
            number=number,
            state=states[number % 4],
            costs=dict(zip(COSTS, costs, strict=False)),
            curve=[*((before, 0.5) for before in range(1, epoch)), (epoch, metric)],
            metric=metric if number % 4 == 0 else None,
            architecture={"train": {"epochs": 27}},
        )
        for number, (metric, *costs) in enumerate(points)
    ]


def studies(costs, *, seed=0, non_finite=True):
    """Rows ``(accuracy, *costs)`` of random studies with many ties and duplicates, and some non-finite metrics."""
    random = np.random.default_rng(seed)
    for size in (1, 2, 3, 5, 14):
        for levels in (3, 1000):
            points = random.integers(1, 1 + levels, (size, 1 + costs)) / 8.0
            if non_finite and size > 3:
                points[random.integers(size), 0] = random.choice([NAN, INF, -INF])
            yield points.tolist()


def decision(pruner, trial, others, aims):
    """The stop of ``trial`` as a running one, whatever its state in the study it was taken from."""
    return pruner.should_stop(replace(trial, state="running", metric=None), History.of(others, aims))


def decisions(pruner, trials, aims):
    """The stop of each trial by its number, each being the running one in turn."""
    history, stops = History.of(trials, aims), {}
    for trial in trials:
        stops[trial.number] = pruner.should_stop(replace(trial, state="running", metric=None), history)
        history.add(trial)
    return stops


def stopped_by(pruner, trials, aims):
    """The numbers of the trials that are stopped, each being the running one in turn."""
    return {number for number, stop in decisions(pruner, trials, aims).items() if stop}


COUNTS = pytest.mark.parametrize("costs", [1, 2, pytest.param(3, marks=pytest.mark.slow)])


@COUNTS
@every_rule_that()
def test_a_trial_that_dominates_all_others_is_not_stopped(rule, costs):
    for epoch in rule.epochs:
        for points in studies(costs):
            best = Record(999, "running", dict.fromkeys(COSTS, 0.1), curve=[(epoch, 999.0)])
            assert decision(rule.pruner, best, study(points, epoch), objectives(costs)) is None


@COUNTS
@every_rule_that("stops_the_dominated")
def test_a_trial_dominated_by_ten_others_is_stopped(rule, costs):
    for epoch in rule.epochs:
        for points in studies(costs, non_finite=False):
            worst = Record(999, "running", dict.fromkeys(COSTS, 999.0), curve=[(epoch, 0.0)])
            if len(points) > 9:
                assert decision(rule.pruner, worst, study(points, epoch), objectives(costs))


@COUNTS
@every_rule_that("keeps_the_cheapest")
def test_the_cheapest_trial_is_never_stopped(rule, costs):
    for epoch in rule.epochs:
        for points in studies(costs):
            cheapest_one = Record(999, "running", dict.fromkeys(COSTS, 0.1), curve=[(epoch, 0.0)])
            assert decision(rule.pruner, cheapest_one, study(points, epoch), objectives(costs)) is None


@COUNTS
@every_rule_that("halves")
def test_at_most_one_in_eta_trials_and_the_cheapest_go_on(rule, costs):
    for points in studies(costs, non_finite=False):
        trials = study(points, rule.epochs[-1])
        going_on = len(trials) - len(stopped_by(rule.pruner, trials, objectives(costs)))
        assert 1 <= going_on <= -(-len(trials) // 3) + 1


@COUNTS
@every_rule_that()
def test_decisions_do_not_depend_on_the_order_of_trials(rule, costs):
    random = np.random.default_rng(1)
    for points in studies(costs):
        trials = study(points, rule.epochs[-1])
        shuffled = [trials[i] for i in random.permutation(len(trials))]
        expected = stopped_by(rule.pruner, trials, objectives(costs))
        assert stopped_by(rule.pruner, shuffled, objectives(costs)) == expected


@COUNTS
@every_rule_that()
def test_decisions_do_not_depend_on_whether_the_history_already_holds_the_trial(rule, costs):
    for points in studies(costs):
        trials = study(points, rule.epochs[-1])
        expected = decisions(rule.pruner, trials, objectives(costs))
        for trial in trials:
            others = [other for other in trials if other is not trial]
            assert decision(rule.pruner, trial, others, objectives(costs)) == expected[trial.number]


@COUNTS
@every_rule_that("ignores_final_states")
def test_decisions_do_not_depend_on_the_final_state_of_other_trials(rule, costs):
    for points in studies(costs):
        trials = study(points, rule.epochs[-1])
        complete = [replace(other, state="complete", metric=other.curve[-1][1]) for other in trials]
        expected = decisions(rule.pruner, trials, objectives(costs))
        assert decisions(rule.pruner, complete, objectives(costs)) == expected


SCALES = {"affine": lambda value: 4.0 * value + 8.0, "monotone": np.exp}


@pytest.mark.parametrize(
    ("rule", "scale"),
    [
        pytest.param(rule, scale, id=f"{rule.name}-{scale}")
        for rule in RULES
        for scale in SCALES
        if f"keeps_under_{scale}_scales" not in rule.lacks
    ],
)
@COUNTS
def test_decisions_do_not_depend_on_the_scale_of_an_objective(rule, scale, costs):
    for points in studies(costs, non_finite=False):
        before = stopped_by(rule.pruner, study(points, rule.epochs[-1]), objectives(costs))
        for objective in range(1 + costs):
            scaled = np.array(points)
            scaled[:, objective] = SCALES[scale](scaled[:, objective])
            assert stopped_by(rule.pruner, study(scaled.tolist(), rule.epochs[-1]), objectives(costs)) == before


@every_rule_that()
def test_minimizing_a_loss_equals_maximizing_its_negative(rule):
    for points in studies(2):
        losses = [[-metric, *costs] for metric, *costs in points]
        trials, mirrored = study(points, rule.epochs[-1]), study(losses, rule.epochs[-1])
        expected = stopped_by(rule.pruner, trials, objectives(2))
        assert stopped_by(rule.pruner, mirrored, objectives(2, "minimize")) == expected


@pytest.mark.parametrize("metric", [NAN, INF, -INF])
@every_rule_that()
def test_a_non_finite_metric_stops_the_trial(rule, metric):
    for epoch in (1, 2, 9):  # rung or not
        trial = Record(0, "running", dict.fromkeys(COSTS, 0.1), curve=[(epoch, metric)])
        assert decision(rule.pruner, trial, [], objectives()) == Stop(f"epoch {epoch}: accuracy is {metric}", epoch)


@every_rule_that()
def test_a_non_finite_metric_is_replaced_when_the_epoch_is_repeated(rule):
    trial = Record(0, "running", dict.fromkeys(COSTS, 0.1), curve=[(1, 0.5), (2, NAN), (1, 0.5)])
    assert decision(rule.pruner, trial, [], objectives()) is None


@COUNTS
@every_rule_that()
def test_the_last_value_of_a_repeated_epoch_counts(rule, costs):
    epoch = rule.epochs[-1]
    for points in studies(costs):
        trials = study(points, epoch)
        resumed = [replace(trial, curve=[(1, 0.1), (epoch, 0.77), *trial.curve]) for trial in trials]
        assert stopped_by(rule.pruner, trials, objectives(costs)) == stopped_by(rule.pruner, resumed, objectives(costs))


@every_rule_that()
def test_the_only_trial_of_a_study_is_not_stopped(rule):
    for curve in ([], [(1, 0.0)], [(1, 0.0), (2, 0.0), (3, 0.0)]):
        assert decision(rule.pruner, Record(0, "running", {"latency_ms": 1.0}, curve=curve), [], objectives()) is None


def slow_survivors(points, eta):
    """Rows ``(loss, *costs)`` that go on: the head of a full ranking, front by front, and the cheapest."""
    ranges = np.ptp(points, axis=0)
    ranking, rest = [], list(range(len(points)))
    while rest:
        dominated = [any((points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in rest) for i in rest]
        front = [i for i, out in zip(rest, dominated, strict=True) if not out]
        rest = [i for i in rest if i not in front]
        keys = []
        for i in front:
            copies = [j for j in front if (points[j] == points[i]).all()]
            distance = INF if len(copies) == len(front) else 0.0
            for axis, extent in enumerate(ranges):
                lower = [points[j, axis] for j in front if points[j, axis] < points[i, axis]]
                higher = [points[j, axis] for j in front if points[j, axis] > points[i, axis]]
                if lower and higher:
                    distance += (min(higher) - max(lower)) / extent
                elif lower or higher:
                    distance = INF
            keys.append((-round(distance, 9) if i == copies[0] else 0.0, points[i, 0], i))
        ranking += [i for *_, i in sorted(keys)]
    cheapest_one = min(range(len(points)), key=lambda i: (*points[i, 1:], points[i, 0], i))
    return {*ranking[: max(1, int(np.ceil(len(points) / eta)))], cheapest_one}


@COUNTS
@pytest.mark.parametrize("eta", [2, 3, 4])
def test_moasha_equals_a_full_ranking(eta, costs):
    pruner = MoAsha(eta=eta, min_epochs=1)
    for points in studies(costs, seed=eta, non_finite=False):
        trials = study(points, eta)
        going_on = {trial.number for trial in trials if not decision(pruner, trial, trials, objectives(costs))}
        assert going_on == slow_survivors(np.array(points) * [-1, *[1] * costs], eta)


def test_moasha_stops_only_at_rungs():
    pruner = MoAsha(eta=3, min_epochs=2)
    assert [epoch for epoch in range(60) if pruner.is_rung(epoch)] == [2, 6, 18, 54]
    worst = Record(999, "running", {"latency_ms": 9.0}, curve=[(1, 0.0), (2, 0.0), (3, 0.0)])
    peers = study([(1.0, 1.0)] * 9, epoch=3)
    assert decision(pruner, worst, peers, objectives()) is None
    assert decision(pruner, replace(worst, curve=worst.curve[:2]), peers, objectives())


def test_moasha_ranks_trials_with_a_non_finite_metric_last():
    # Three of six are not finite: two of six go on, not one of three.
    points = [(NAN, 1.0), (INF, 1.0), (-INF, 1.0), (0.9, 5.0), (0.8, 6.0), (0.7, 7.0)]
    trials = study(points, 3)
    pruner = MoAsha(eta=3, min_epochs=1)
    assert [bool(decision(pruner, trial, trials, objectives())) for trial in trials] == [True] * 3 + [
        False,
        False,
        True,
    ]


def ranks(points):
    return [sum(not among_best(points, row, places) for places in range(1, 9)) for row in range(len(points))]


def test_moasha_ranks_a_front_by_crowding_distance():
    # One front: its extreme points, then by the gap between neighbours: 5 + 5 at row 3, 4 + 4 at 2 and 4, 3 + 3 at 1.
    points = np.array([(0, 9), (1, 8), (3, 6), (5, 4), (8, 1), (9, 0)], dtype=float)
    assert ranks(points) == [0, 5, 3, 2, 4, 1]


def test_moasha_normalises_crowding_distances_by_the_range_of_the_whole_rung():
    # Alone, row 2 has the larger distance; with a loss of 99 in the rung, differences in loss count for little.
    front = [(0, 10), (1, 4), (2, 3), (8, 0)]
    assert ranks(np.array(front, dtype=float))[1:3] == [3, 2]
    assert ranks(np.array([*front, (99, 11)], dtype=float))[1:3] == [2, 3]


def test_moasha_breaks_ties_by_metric_and_then_by_trial_number():
    points = np.array([(2, 1), (1, 2), (1, 2), (3, 3), (3, 3)], dtype=float)
    assert ranks(points) == [1, 0, 2, 3, 4]
    assert cheapest(np.array([(2, 1, 5), (9, 1, 3), (1, 1, 3), (1, 1, 3), (NAN, 0, 0)], dtype=float)) == 2


def test_moasha_names_the_dominating_trials_or_the_crowding_distance():
    points = [(0.9, 1.0), (0.8, 0.9), (0.7, 0.8), (0.6, 0.7), (0.9, 9.0), (0.95, 2.0), (0.123456, 5.0)]
    trials = study(points, 3)
    assert decision(MoAsha(eta=3, min_epochs=1), trials[-1], trials, objectives()).reason == (
        "epoch 3: accuracy 0.1235, not among the best 3 of 7; better at no higher cost: trials 5, 0, 1 and 2 more"
    )
    assert decision(MoAsha(eta=3, min_epochs=1), trials[1], trials, objectives()).reason == (
        "epoch 3: accuracy 0.8, not among the best 3 of 7; lower crowding distance"
    )


@pytest.mark.parametrize("rule", [MoAsha, AccuracyOnly])
@pytest.mark.parametrize("settings", [{"eta": 1}, {"eta": 2.5}, {"eta": "3"}, {"min_epochs": 0}])
def test_invalid_halving_settings_are_rejected(settings, rule):
    with pytest.raises(ValueError, match="must be a whole number from"):
        rule(**{"eta": 3, "min_epochs": 1} | settings)


def test_every_rule_has_a_module_a_yaml_and_a_row():
    others = {"__main__", "optuna_study"}
    modules = {module.name for module in pkgutil.iter_modules(search.pruning.__path__)} - others
    assert modules == {path.stem for path in YAMLS.glob("*.yaml")} == {rule.name for rule in RULES}


def test_the_benchmark_prints_every_rule_and_number_of_costs(capsys):
    main(size=20)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, count] for name in rules() for count in "123"]


@every_rule_that()
def test_the_yaml_constructs_the_rule_and_shows_its_command(rule):
    text = (YAMLS / f"{rule.name}.yaml").read_text()
    settings = yaml.safe_load(text)
    module, _, name = settings.pop("_target_").rpartition(".")
    assert module == f"search.pruning.{rule.name}"
    assert type(getattr(importlib.import_module(module), name)(**settings)) is type(rule.pruner)
    assert text.splitlines()[1].startswith(f"# Try it:  python -m search.run +space=nlp pruner={rule.name}")


@pytest.mark.parametrize("curve", [[], [(1, 0.1)], [(1, 0.1), (2, 0.2), (3, 0.3)], [(1, 0.1), (2, 0.2), (1, 0.3)]])
def test_metric_at_is_the_last_metric_of_an_epoch_or_none(curve):
    record = Record(0, "running", curve=curve)
    assert [record.metric_at(epoch) for epoch in range(-4, 6)] == [dict(curve).get(epoch) for epoch in range(-4, 6)]
