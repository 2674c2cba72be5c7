"""What every pruning rule must keep: one table of rules, one test a property, the exceptions in the table."""

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
from search.pruning import Pruner, is_rung
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
    """A row: a rule, the epochs at which it judges in 9 epochs, and the properties it lacks, each with the reason."""

    name: str
    pruner: Pruner
    epochs: tuple[int, ...]
    lacks: Mapping[str, str] = field(default_factory=dict)


NEEDS_FINISHED = "it compares with finished trials alone, and these are unfinished"
HALVES_NOT = "it is no halving: as many go on as are good enough"
RULES = [
    Rule(
        "none",
        NoPruner(),
        epochs=(1, 9),
        lacks={"stops_the_dominated": "it stops nobody", "halves": HALVES_NOT},
    ),
    Rule(
        "moasha",
        MoAsha(eta=3, min_epochs=1),
        epochs=(1, 3, 9),
        lacks={"keeps_under_monotone_scales": "crowding measures distances: only affine scales keep them"},
    ),
    Rule(
        "latency_conditional",
        LatencyConditional(beaters=2, slack=0.0, min_epochs=1),
        epochs=(1, 2, 9),
        lacks={"halves": HALVES_NOT},
    ),
    Rule("i_epoch", IEpoch(epoch=3), epochs=(3,), lacks={"halves": HALVES_NOT}),
    Rule(
        "accuracy_only",
        AccuracyOnly(eta=3, min_epochs=1),
        epochs=(1, 3, 9),
        lacks={"keeps_the_cheapest": "it is blind to costs: that is what the negative control is for"},
    ),
    Rule(
        "optimistic",
        Optimistic(quantile=0.9, neighbours=3, min_epochs=1),
        epochs=(1, 2, 9),
        lacks={
            "halves": HALVES_NOT,
            "keeps_under_monotone_scales": "gains are differences: only affine scales keep them",
            "ignores_how_others_ended": "gains are known of finished trials alone",
        },
    ),
    Rule(
        "ceiling",
        Ceiling(target=None),
        epochs=(1, 9),
        lacks={
            "stops_the_dominated": "it stops behind the target alone, however bad a trial is",
            "halves": HALVES_NOT,
            "keeps_under_affine_scales": "the target is in units of the metric and is not rescaled with it",
            "keeps_under_monotone_scales": "the target is in units of the metric and is not rescaled with it",
            "ignores_how_others_ended": "a target is met by finished trials alone",
        },
    ),
    Rule(
        "gain_rate",
        GainRate(patience=0.5, first=2, target=None),
        epochs=(1, 2, 9),
        lacks={
            "halves": HALVES_NOT,
            "keeps_under_affine_scales": "gains are shares of a box that is not rescaled with the objectives",
            "keeps_under_monotone_scales": "gains are shares of a box that is not rescaled with the objectives",
            "ignores_how_others_ended": "gains are known of finished trials alone",
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
    """Records whose last metric and costs are the rows ``(accuracy, *costs)`` of ``points``, in mixed states."""
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


def studies(costs, *, seed=0, lost=True):
    """Rows ``(accuracy, *costs)`` of random studies rich in ties and copies, with lost metrics if asked."""
    random = np.random.default_rng(seed)
    for size in (1, 2, 3, 5, 14):
        for levels in (3, 1000):
            points = random.integers(1, 1 + levels, (size, 1 + costs)) / 8.0
            if lost and size > 3:
                points[random.integers(size), 0] = random.choice([NAN, INF, -INF])
            yield points.tolist()


def stops(pruner, trial, others, aims):
    """What is judged is running, whatever became of it in the study it was taken from."""
    return pruner.stops(replace(trial, state="running", metric=None), History.of(others, aims))


def stopped(rule, trials, aims):
    """The numbers of the trials that would be stopped if each were the running one."""
    return {trial.number for trial in trials if stops(rule.pruner, trial, trials, aims)}


COUNTS = pytest.mark.parametrize("costs", [1, 2, 3])


@COUNTS
@every_rule_that()
def test_who_dominates_everybody_goes_on(rule, costs):
    for epoch in rule.epochs:
        for points in studies(costs):
            best = Record(999, "running", dict.fromkeys(COSTS, 0.1), curve=[(epoch, 999.0)])
            assert stops(rule.pruner, best, study(points, epoch), objectives(costs)) is None


@COUNTS
@every_rule_that("stops_the_dominated")
def test_who_is_dominated_by_everybody_is_stopped_once_there_is_a_quorum(rule, costs):
    for epoch in rule.epochs:
        for points in studies(costs, lost=False):
            worst = Record(999, "running", dict.fromkeys(COSTS, 999.0), curve=[(epoch, 0.0)])
            if len(points) > 9:
                assert stops(rule.pruner, worst, study(points, epoch), objectives(costs))


@COUNTS
@every_rule_that("keeps_the_cheapest")
def test_the_cheapest_is_never_stopped_by_a_comparison(rule, costs):
    for epoch in rule.epochs:
        for points in studies(costs):
            frugal = Record(999, "running", dict.fromkeys(COSTS, 0.1), curve=[(epoch, 0.0)])
            assert stops(rule.pruner, frugal, study(points, epoch), objectives(costs)) is None


@COUNTS
@every_rule_that("halves")
def test_at_most_one_in_eta_and_the_cheapest_go_on(rule, costs):
    for points in studies(costs, lost=False):
        trials = study(points, rule.epochs[-1])
        going_on = len(trials) - len(stopped(rule, trials, objectives(costs)))
        assert 1 <= going_on <= -(-len(trials) // 3) + 1


@COUNTS
@every_rule_that()
def test_order_of_arrival_changes_nothing(rule, costs):
    random = np.random.default_rng(1)
    for points in studies(costs):
        trials = study(points, rule.epochs[-1])
        shuffled = [trials[i] for i in random.permutation(len(trials))]
        assert stopped(rule, trials, objectives(costs)) == stopped(rule, shuffled, objectives(costs))


@COUNTS
@every_rule_that()
def test_it_does_not_matter_whether_the_trial_is_among_the_others(rule, costs):
    for points in studies(costs):
        trials = study(points, rule.epochs[-1])
        for trial in trials:
            others = [other for other in trials if other is not trial]
            alone = stops(rule.pruner, trial, others, objectives(costs))
            assert alone == stops(rule.pruner, trial, trials, objectives(costs))


@COUNTS
@every_rule_that("ignores_how_others_ended")
def test_how_the_others_ended_changes_nothing(rule, costs):
    for points in studies(costs):
        trials = study(points, rule.epochs[-1])
        complete = [replace(other, state="complete", metric=other.curve[-1][1]) for other in trials]
        for trial in trials:
            assert stops(rule.pruner, trial, complete, objectives(costs)) == stops(
                rule.pruner, trial, trials, objectives(costs)
            )


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
def test_the_unit_of_an_objective_changes_nothing(rule, scale, costs):
    for points in studies(costs, lost=False):
        before = stopped(rule, study(points, rule.epochs[-1]), objectives(costs))
        for objective in range(1 + costs):
            scaled = np.array(points)
            scaled[:, objective] = SCALES[scale](scaled[:, objective])
            assert stopped(rule, study(scaled.tolist(), rule.epochs[-1]), objectives(costs)) == before


@every_rule_that()
def test_a_loss_is_judged_as_its_negative_is(rule):
    for points in studies(2):
        losses = [[-metric, *costs] for metric, *costs in points]
        trials, mirrored = study(points, rule.epochs[-1]), study(losses, rule.epochs[-1])
        assert stopped(rule, trials, objectives(2)) == stopped(rule, mirrored, objectives(2, "minimize"))


@pytest.mark.parametrize("metric", [NAN, INF, -INF])
@every_rule_that()
def test_a_metric_that_is_lost_stops_the_trial(rule, metric):
    for epoch in (1, 2, 9):  # rung or not
        trial = Record(0, "running", dict.fromkeys(COSTS, 0.1), curve=[(epoch, metric)])
        assert stops(rule.pruner, trial, [], objectives()) == Stop(f"epoch {epoch}: accuracy is {metric}", epoch)


@every_rule_that()
def test_a_lost_metric_that_a_resumed_trial_replaced_is_forgotten(rule):
    trial = Record(0, "running", dict.fromkeys(COSTS, 0.1), curve=[(1, 0.5), (2, NAN), (1, 0.5)])
    assert stops(rule.pruner, trial, [], objectives()) is None


@COUNTS
@every_rule_that()
def test_of_a_rung_reported_twice_the_last_counts(rule, costs):
    epoch = rule.epochs[-1]
    for points in studies(costs):
        trials = study(points, epoch)
        resumed = [replace(trial, curve=[(1, 0.1), (epoch, 0.77), *trial.curve]) for trial in trials]
        assert stopped(rule, trials, objectives(costs)) == stopped(rule, resumed, objectives(costs))


@every_rule_that()
def test_without_others_everybody_goes_on_even_before_training(rule):
    for curve in ([], [(1, 0.0)], [(1, 0.0), (2, 0.0), (3, 0.0)]):
        assert stops(rule.pruner, Record(0, "running", {"latency_ms": 1.0}, curve=curve), [], objectives()) is None


def slow_survivors(points, eta):
    """Rows ``(loss, *costs)`` that go on: a full ranking, layer by layer, then its head and the cheapest."""
    ranges = np.ptp(points, axis=0)
    ranking, rest = [], list(range(len(points)))
    while rest:
        beaten = [any((points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in rest) for i in rest]
        layer = [i for i, out in zip(rest, beaten, strict=True) if not out]
        rest = [i for i in rest if i not in layer]
        keys = []
        for i in layer:
            copies = [j for j in layer if (points[j] == points[i]).all()]
            room = INF if len(copies) == len(layer) else 0.0
            for axis, extent in enumerate(ranges):
                lower = [points[j, axis] for j in layer if points[j, axis] < points[i, axis]]
                higher = [points[j, axis] for j in layer if points[j, axis] > points[i, axis]]
                if lower and higher:
                    room += (min(higher) - max(lower)) / extent
                elif lower or higher:
                    room = INF
            keys.append((-round(room, 9) if i == copies[0] else 0.0, points[i, 0], i))
        ranking += [i for *_, i in sorted(keys)]
    frugal = min(range(len(points)), key=lambda i: (*points[i, 1:], points[i, 0], i))
    return {*ranking[: max(1, int(np.ceil(len(points) / eta)))], frugal}


@COUNTS
@pytest.mark.parametrize("eta", [2, 3, 4])
def test_moasha_agrees_with_a_full_ranking(eta, costs):
    pruner = MoAsha(eta=eta, min_epochs=1)
    for points in studies(costs, seed=eta, lost=False):
        trials = study(points, eta)
        going_on = {trial.number for trial in trials if not stops(pruner, trial, trials, objectives(costs))}
        assert going_on == slow_survivors(np.array(points) * [-1, *[1] * costs], eta)


def test_moasha_judges_at_its_rungs_alone():
    pruner = MoAsha(eta=3, min_epochs=2)
    assert [epoch for epoch in range(60) if is_rung(epoch, eta=3, min_epochs=2)] == [2, 6, 18, 54]
    worst = Record(999, "running", {"latency_ms": 9.0}, curve=[(1, 0.0), (2, 0.0), (3, 0.0)])
    peers = study([(1.0, 1.0)] * 9, epoch=3)
    assert stops(pruner, worst, peers, objectives()) is None
    assert stops(pruner, replace(worst, curve=worst.curve[:2]), peers, objectives())


def test_moasha_counts_a_trial_whose_metric_was_lost_as_the_last_of_its_rung():
    # Three of six were lost: two of six go on, not one of three.
    points = [(NAN, 1.0), (INF, 1.0), (-INF, 1.0), (0.9, 5.0), (0.8, 6.0), (0.7, 7.0)]
    trials = study(points, 3)
    pruner = MoAsha(eta=3, min_epochs=1)
    assert [bool(stops(pruner, trial, trials, objectives())) for trial in trials] == [True] * 3 + [False, False, True]


def positions(points):
    return [sum(not among_best(points, row, places) for places in range(1, 9)) for row in range(len(points))]


def test_moasha_ranks_a_layer_by_the_room_inside_it():
    # One layer: first its ends, then by the gap between the neighbours, 5 + 5 at row 3, 4 + 4 at 2 and 4, 3 + 3 at 1.
    points = np.array([(0, 9), (1, 8), (3, 6), (5, 4), (8, 1), (9, 0)], dtype=float)
    assert positions(points) == [0, 5, 3, 2, 4, 1]


def test_moasha_measures_room_by_the_range_of_the_whole_rung():
    # Alone, row 2 has more room; a loss of 99, far behind, makes differences in loss count for little.
    layer = [(0, 10), (1, 4), (2, 3), (8, 0)]
    assert positions(np.array(layer, dtype=float))[1:3] == [3, 2]
    assert positions(np.array([*layer, (99, 11)], dtype=float))[1:3] == [2, 3]


def test_moasha_gives_a_tie_to_the_better_metric_and_then_to_the_earlier_trial():
    points = np.array([(2, 1), (1, 2), (1, 2), (3, 3), (3, 3)], dtype=float)
    assert positions(points) == [1, 0, 2, 3, 4]
    assert cheapest(np.array([(2, 1, 5), (9, 1, 3), (1, 1, 3), (1, 1, 3), (NAN, 0, 0)], dtype=float)) == 2


def test_moasha_says_who_was_better():
    points = [(0.9, 1.0), (0.8, 0.9), (0.7, 0.8), (0.6, 0.7), (0.9, 9.0), (0.95, 2.0), (0.123456, 5.0)]
    trials = study(points, 3)
    assert stops(MoAsha(eta=3, min_epochs=1), trials[-1], trials, objectives()).reason == (
        "epoch 3: accuracy 0.1235 is not among the best 3 of 7; better at no higher cost: trials 0, 1, 2 and 2 more"
    )
    assert stops(MoAsha(eta=3, min_epochs=1), trials[1], trials, objectives()).reason == (
        "epoch 3: accuracy 0.8 is not among the best 3 of 7; nobody beats it, but those around it have more room"
    )


@pytest.mark.parametrize("rule", [MoAsha, AccuracyOnly])
@pytest.mark.parametrize("settings", [{"eta": 1}, {"eta": 2.5}, {"eta": "3"}, {"min_epochs": 0}])
def test_halving_refuses_settings_that_make_no_sense(settings, rule):
    with pytest.raises(ValueError, match="must be a whole number from"):
        rule(**{"eta": 3, "min_epochs": 1} | settings)


def test_modules_yamls_and_rows_are_the_same_set():
    others = {"__main__", "optuna_study"}
    modules = {module.name for module in pkgutil.iter_modules(search.pruning.__path__)} - others
    assert modules == {path.stem for path in YAMLS.glob("*.yaml")} == {rule.name for rule in RULES}


def test_the_time_of_a_decision_is_shown_for_every_rule_and_number_of_costs(capsys):
    main(size=20)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, count] for name in rules() for count in "123"]


@every_rule_that()
def test_the_yaml_builds_the_rule_and_shows_how_to_try_it(rule):
    text = (YAMLS / f"{rule.name}.yaml").read_text()
    settings = yaml.safe_load(text)
    module, _, name = settings.pop("_target_").rpartition(".")
    assert module == f"search.pruning.{rule.name}"
    assert type(getattr(importlib.import_module(module), name)(**settings)) is type(rule.pruner)
    assert text.splitlines()[1].startswith(f"# Try it:  python -m search.run +space=nlp pruner={rule.name}")


@pytest.mark.parametrize("curve", [[], [(1, 0.1)], [(1, 0.1), (2, 0.2), (3, 0.3)], [(1, 0.1), (2, 0.2), (1, 0.3)]])
def test_a_record_knows_the_last_metric_of_each_epoch_and_none_of_the_others(curve):
    record = Record(0, "running", curve=curve)
    assert [record.metric_at(epoch) for epoch in range(-4, 6)] == [dict(curve).get(epoch) for epoch in range(-4, 6)]
