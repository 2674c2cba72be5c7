"""The choice of the next trial: candidates, the surrogate model and the plan around both."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import optuna
import pytest
from csv_files import FINITE, table
from tiny_task import TREE, FirstToken

from search.costs.latency import FlopsLatency
from search.costs.measured import MeasuredCosts
from search.lifecycle import Done, Resume, Sample, Start, proposer_of
from search.pruning.gain_rate import GainRate
from search.pruning.none import NoPruner
from search.samplers import candidates, posterior, surrogate
from search.samplers.candidates import Candidate, Draw, Pool
from search.samplers.posterior import (
    Posterior,
    clip_outliers,
    linear_mean,
    standardization,
    trainable_rows,
    training_rows,
)
from search.samplers.surrogate import MIN_COMPLETE, SurrogateSampler, ehvi_per_second, most_per_second, preference
from search.study.history import History, Prediction
from search.study.records import Record
from spaces.architecture import key, network_key
from spaces.space import Space

TABLE = table()
SURROGATE = SurrogateSampler(candidates=8, seed=0)
NO_PAUSED = np.empty(0, dtype=np.intp)
GAIN_RATE = GainRate(patience=0.0, first=3)


def record(number, row, epochs=6, state="complete"):
    curve = list(enumerate(TABLE.curves[0][row][:epochs], start=1))
    return Record(
        number,
        state,
        TABLE.costs[row],
        curve,
        metric=curve[-1][1] if state == "complete" else None,
        architecture=TABLE.architectures[row],
        cpu_seconds=[TABLE.seconds[row] * epoch for epoch in range(1, epochs + 1)],
    )


def candidate(row):
    return Candidate(TABLE.parameters[row], dict(TABLE.architectures[row]), lambda _: TABLE.costs[row])


def history(rows, paused=()):
    complete = [record(number, row) for number, row in enumerate(rows)]
    paused_records = [record(100 + row, row, epochs=2, state="paused") for row in paused]
    return History.of([*complete, *paused_records], TABLE.objectives)


def started(*candidates):
    records = (Record(number, "running", architecture=each.architecture) for number, each in enumerate(candidates))
    return History.of(records, TABLE.objectives)


@pytest.fixture
def pool():
    tree = {**TREE, "train": {**TREE["train"], "lr": 0.01}}
    counted = MeasuredCosts(FirstToken(), FlopsLatency()).counted
    return lambda **settings: Pool(Space(tree), counted, **{"size": 4, "limits": {}, "seed": 0} | settings)


def test_candidates_are_unseen_and_distinct_and_have_counted_costs(pool):
    made = pool()
    first = made.unseen(started())
    assert len({key(each.architecture) for each in first}) == len(first) == 4
    assert all({"parameters", "flops"} <= set(each.costs) for each in first)
    rest = made.unseen(started(*first))
    assert not {key(each.architecture) for each in rest} & {key(each.architecture) for each in first}
    assert len(rest) == 2  # of six architectures
    assert made.unseen(started(*first, *rest)) == []


def test_unused_candidates_are_kept_and_limits_respected(pool):
    made = pool()
    first = made.unseen(started())
    again = made.unseen(started(first[0]))
    assert [key(each.architecture) for each in again[:3]] == [key(each.architecture) for each in first[1:]]
    most = sorted(each.costs["parameters"] for each in pool(size=6).unseen(started()))[2]
    limited = pool(size=6, limits={"parameters": most, "latency_ms": 1.0}).unseen(started())
    assert 0 < len(limited) <= 3
    assert all(each.costs["parameters"] <= most for each in limited)


@pytest.mark.parametrize(("limits", "calls"), [({}, 0), ({"flops": None}, 0), ({"flops": 3.0}, 4)])
def test_costs_are_counted_when_they_are_needed_unless_one_is_limited(limits, calls):
    counted = []

    def count(architecture):
        counted.append(architecture)
        return {"flops": 1.0}

    found = Pool(Space(TREE), count, size=4, limits=limits, seed=0, trainable=True).unseen(started())
    assert (len(found), len(counted)) == (4, calls)
    assert [each.costs["flops"] for each in found] * 2 == [1.0] * 8
    assert len(counted) == 4, "each once"


def test_memory_is_bounded_by_draws_that_are_no_candidates_any_more(monkeypatch):
    found = []
    for least in (0, 10**9):
        monkeypatch.setattr(candidates, "MIN_DRAWS", least)
        made, trials = Pool(Space(TREE), lambda architecture: {"flops": 1.0}, size=1, limits={}, seed=0), []
        for _ in range(150):
            unseen = made.unseen(started(*trials))
            trials.append(unseen[len(trials) % len(unseen)])
        found.append([key(each.architecture) for each in unseen])
        assert len(made._pool) == (150 - 4 * candidates.MAX_POOL if least == 0 else 150)
    assert found[0] == found[1]


def test_neighbours_of_the_front_differ_from_a_member_in_one_parameter():
    made = Pool(Space(FINITE), lambda architecture: {"flops": 1.0}, size=20, limits={}, seed=0)
    best = max(range(48), key=lambda row: TABLE.finals(0)[row] - 0.2 * TABLE.costs[row]["latency_ms"])
    one = dataclasses.replace(record(0, best), parameters=TABLE.parameters[best])
    alone = {key(each.architecture) for each in made.unseen(started(candidate(best)))}
    near = [each for each in made.unseen(History.of([one], TABLE.objectives)) if key(each.architecture) not in alone]
    assert near
    for each in near:
        shared = each.parameters.keys() & one.parameters.keys()
        assert sum(each.parameters[name] != one.parameters[name] for name in shared) <= 1


def test_draws_of_a_dimension_are_within_its_bounds_and_reach_them():
    random = np.random.default_rng(0)
    draws = [Draw(random) for _ in range(300)]
    floats = [draw.suggest_float("a", 0.001, 1.0, step=None, log=True) for draw in draws]
    assert 0.001 <= min(floats) < 0.002 < 0.5 < max(floats) <= 1.0
    assert np.median(np.log10(floats)) == pytest.approx(-1.5, abs=0.3)
    assert {draw.suggest_float("b", 0.1, 0.5, step=0.2, log=False) for draw in draws} == {0.1, 0.1 + 0.2, 0.5}
    assert {draw.suggest_int("c", 1, 7, step=3, log=False) for draw in draws} == {1, 4, 7}
    assert {draw.suggest_int("d", 1, 4, step=1, log=True) for draw in draws} == {1, 2, 3, 4}
    assert {draw.suggest_categorical("e", ["x", None]) for draw in draws} == {"x", None}


def test_the_model_generalises_to_unseen_settings():
    """In all training data the higher learning rate has the better final metric at equal costs."""
    networks = sorted({network_key(each) for each in TABLE.architectures})
    rows = [row for row, each in enumerate(TABLE.architectures) if networks.index(network_key(each)) % 2]
    unseen = [row for row in range(48) if row not in rows]
    speeds = dict(
        zip(unseen, ehvi_per_second(history(rows), NO_PAUSED, [candidate(row) for row in unseen]), strict=True)
    )
    low, high = ([row for row in unseen if TABLE.architectures[row]["train"]["lr"] == lr] for lr in (0.003, 0.01))
    better = [speeds[b] > speeds[a] for a in low for b in high if _network(a) == _network(b)]
    assert len(better) == 12
    assert all(better)


def _network(row):
    return network_key(TABLE.architectures[row])


def test_far_from_all_trials_the_model_expects_the_mean_of_all_not_of_those_it_is_fitted_to(monkeypatch):
    far = dataclasses.replace(candidate(0), architecture={"model": {"width": 1e9}})
    means = []
    for most in (48, 12):
        monkeypatch.setattr(posterior, "MAX_TRIALS", most)
        monkeypatch.setattr(posterior, "rbf_kernel", lambda a, b, scales: (a[:, None] == b).all(axis=2).astype(float))
        monkeypatch.setattr(posterior, "kernel_blocks", lambda a, b, scales: [np.zeros((len(a), len(b)))])
        means.append(Posterior(history(range(48)), NO_PAUSED, [far]).mean[0])
    assert means[0] == pytest.approx(means[1])


@pytest.mark.parametrize("most", [10, 20, 47, 48])
def test_of_many_trials_the_model_learns_from_the_best_and_evenly_from_the_others(monkeypatch, most):
    monkeypatch.setattr(posterior, "MAX_TRIALS", most)
    known = history(range(40), paused=range(40, 48))
    rows = training_rows(known, trainable_rows(known))
    assert len(rows) == len(set(rows.tolist())) == most
    assert (np.diff(known.epochs[rows]) <= 0).all(), "the longest trained come first"
    losses = known.losses[np.arange(48), known.epochs - 1]
    left, best = set(range(48)), []
    while left and most < 48:  # non-dominated sorting
        front = [
            row
            for row in sorted(left)
            if not any(
                losses[other] <= losses[row]
                and known.costs[other, 0] <= known.costs[row, 0]
                and (losses[other], known.costs[other, 0]) != (losses[row], known.costs[row, 0])
                for other in left
            )
        ]
        best.append(front)
        left -= set(front)
    sorted_rows = [row for front in best for row in front]
    inside = [front for front in best if sorted_rows.index(front[-1]) < most // 2]
    assert {row for front in inside for row in front} <= set(rows.tolist())
    others = np.flatnonzero(~np.isin(np.arange(48), sorted_rows[: most // 2]))
    assert {others[0], others[-1]} <= set(rows.tolist()), "the oldest and the newest trial"


def test_hyperparameters_are_fitted_again_however_many_trials_there_are(monkeypatch):
    monkeypatch.setattr(posterior, "MAX_TRIALS", 10)
    fits = []
    fit = posterior.fit_hyperparameters
    monkeypatch.setattr(posterior, "fit_hyperparameters", lambda *given: fits.append(len(given[-1])) or fit(*given))
    known, unseen = history(range(20)), [candidate(47)]
    before = [Posterior(known, NO_PAUSED, unseen).mean for _ in range(3)]
    assert fits == [10]
    best = int(np.argmax(TABLE.finals(0)))
    known.add(record(99, best))
    after = Posterior(known, NO_PAUSED, [candidate(best)])
    assert fits == [10, 10]
    assert abs(after.mean[0] - TABLE.objectives.loss(TABLE.finals(0)[best])) < 0.1, "the newest trial is learned from"
    assert (before[0] == before[2]).all()


def test_unmeasured_costs_are_predicted_from_flops():
    """Of two candidates with the same settings the one with fewer FLOPs has a higher EHVI per second."""
    rows = list(range(0, 48, 2))
    twenty = {**TABLE.costs[1], "flops": 20 * TABLE.costs[1]["flops"]}
    expensive = dataclasses.replace(candidate(1), counted=lambda _: twenty)
    cheap, costly = ehvi_per_second(history(rows), NO_PAUSED, [candidate(1), expensive])
    assert cheap > 2 * costly


def test_the_weight_of_seconds_falls_as_the_time_budget_is_used_up():
    known, unseen = history(range(0, 48, 2)), [candidate(row) for row in range(1, 48, 2)]
    values = {}
    for known.budget_used in (0.0, 0.5, 1.0):
        values[known.budget_used] = ehvi_per_second(known, NO_PAUSED, unseen)
    np.testing.assert_allclose(values[0.5], np.sqrt(values[0.0] * values[1.0]))
    seconds = values[1.0] / values[0.0]
    flops = [each.costs["flops"] for each in unseen]
    assert np.corrcoef(seconds, flops)[0, 1] > 0.9
    assert flops[np.argmax(values[1.0])] > flops[np.argmax(values[0.0])]


def test_what_takes_longer_than_the_time_left_is_not_chosen():
    known, unseen = history(range(0, 48, 2)), [candidate(row) for row in range(1, 48, 2)]
    known.budget_used = 1.0
    gains = ehvi_per_second(known, NO_PAUSED, unseen)
    known.budget_used = 0.0
    seconds = gains / ehvi_per_second(known, NO_PAUSED, unseen)
    known.budget_used, known.available_s = 1.0, 0.999 * seconds[np.argmax(gains)]
    assert seconds[np.argmax(ehvi_per_second(known, NO_PAUSED, unseen))] <= known.available_s


@pytest.mark.parametrize("evaluated", [1, 3, 1000])
def test_the_choice_is_the_highest_ehvi_per_second_of_all_candidates(monkeypatch, evaluated):
    """Whatever is not evaluated because of its upper bound; of equal candidates it is the first one."""
    monkeypatch.setattr(surrogate, "EVALUATED", evaluated)
    random = np.random.default_rng(0)
    for complete in (MIN_COMPLETE, 10, 20):
        rows = random.permutation(48)
        unseen = [candidate(row) for row in rows[complete:] for _ in range(2)]
        for paused in ([], rows[complete : complete + 3].tolist()):
            known = history(rows[:complete].tolist(), paused)
            paused_rows = np.flatnonzero(known.paused)
            for known.budget_used in (0.0, 1.0):
                known.available_s = random.choice([math.inf, 30.0])
                expected = int(np.argmax(ehvi_per_second(known, paused_rows, unseen)))
                assert most_per_second(known, paused_rows, unseen) == expected


def test_preferred_costs_weigh_the_gains_and_nothing_else():
    seen, unseen = history(range(MIN_COMPLETE + 2)), [candidate(row) for row in range(20, 30)]
    plain = ehvi_per_second(seen, NO_PAUSED, unseen)
    target = float(np.median([each.costs["latency_ms"] for each in unseen]))
    seen.objectives = dataclasses.replace(seen.objectives, preferred={"latency_ms": target})
    weights = preference(
        np.array([[target / 4], [target / 2], [target], [2 * target], [1e9 * target]]), seen.objectives
    )
    np.testing.assert_allclose(weights, [np.exp(-2), np.exp(-0.5), 1.0, np.exp(-0.5), 0.01])
    expected = plain * preference(Posterior(seen, NO_PAUSED, unseen).costs, seen.objectives)
    np.testing.assert_allclose(ehvi_per_second(seen, NO_PAUSED, unseen), expected)


def test_paused_trials_compete_with_unseen_architectures():
    fresh = [candidate(row) for row in (1, 3)]
    promising = int(np.argmax(TABLE.finals(0)))
    known = history(range(0, 2 * MIN_COMPLETE, 2), paused=[promising])
    assert SURROGATE.choose(known, [], pauses=True) == 100 + promising
    choice = SURROGATE.choose(known, fresh, pauses=False)
    assert isinstance(choice, Candidate)
    assert SURROGATE.choose(known, [], pauses=False) is None
    few = history([0], paused=[promising])
    assert SURROGATE.choose(few, fresh, pauses=True) is fresh[0]  # too few complete trials for the model


def test_a_partial_curve_is_a_noisy_observation_of_its_final_loss():
    """The posterior of a paused trial is narrower than that of the same architecture without a trial."""
    known = history(range(0, 48, 2), paused=[1])
    row = known.row(101)
    paused = Posterior(known, np.array([row]))
    unseen = Posterior(known, NO_PAUSED, [known.record(101)], forget=row)
    assert paused.mean[0] == pytest.approx(-TABLE.finals(0)[1], abs=3 * paused.std()[0])
    assert paused.std()[0] < unseen.std()[0]
    assert unseen.seconds[0] == pytest.approx(6 / 4 * paused.seconds[0])  # 2 of its 6 epochs are trained
    without = history(range(0, 48, 2))
    assert Posterior(without, NO_PAUSED, [candidate(1)]).mean == pytest.approx(unseen.mean)


def test_the_mean_of_the_model_is_linear_in_the_predicted_damage(monkeypatch):
    """Against a slow reference: a line fitted by NumPy is subtracted from the metrics, and added to the posterior."""
    monkeypatch.setattr(posterior, "OUTLIERS", 1e9)  # clipped losses minus a line are not the clipped differences
    rows, unseen = list(range(0, 48, 2)), [candidate(row) for row in range(1, 48, 2)]
    finals, described = -TABLE.finals(0)[rows], [TABLE.parameters[row] for row in rows]
    scores = {str(each): float(at % 7) for at, each in enumerate(TABLE.parameters)}
    known = history(rows)
    known.prior = lambda parameters: Prediction(scores[str(parameters)] ** 2, 1.0)
    records = [dataclasses.replace(known.record(n), parameters=each) for n, each in enumerate(described)]
    for each in records:
        known.add(each)
    x = np.array([scores[str(each)] for each in described])
    slope = np.polyfit(x, finals, 1)[0] * len(rows) / (len(rows) + 1)
    line = {name: slope * (score - x.mean()) for name, score in scores.items()}
    flat = [
        dataclasses.replace(each, metric=-value, curve=[*each.curve[:-1], (each.epochs, -value)])
        for each, value in zip(records, finals - [line[str(each)] for each in described], strict=True)
    ]
    assert slope > 0, "the reference has a slope that is not clipped"
    residuals = Posterior(History.of(flat, TABLE.objectives), NO_PAUSED, unseen)
    found = Posterior(known, NO_PAUSED, unseen)
    expected = residuals.mean + [line[str(each.parameters)] for each in unseen]
    np.testing.assert_allclose(found.mean, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.std(), residuals.std(), rtol=0, atol=1e-9)


def test_a_prior_that_knows_the_losses_predicts_unseen_ones_better_and_one_that_does_not_changes_little():
    rows, unseen = list(range(0, 48, 6)), [row for row in range(48) if row % 6]
    order = np.random.default_rng(0).permutation(48)
    scores = {"none": np.zeros(48), "shuffled": 1 + TABLE.finals(0)[order], "knowing": 1 - TABLE.finals(0)}
    errors = {}
    for name, each in scores.items():
        damages = {str(TABLE.parameters[row]): each[row] for row in range(48)}
        known = history(rows)
        known.prior = lambda parameters, damages=damages: Prediction(damages[str(parameters)], 1.0)
        for n, row in enumerate(rows):
            known.add(dataclasses.replace(known.record(n), parameters=TABLE.parameters[row]))
        mean = Posterior(known, NO_PAUSED, [candidate(row) for row in unseen]).mean
        errors[name] = float(np.abs(mean + TABLE.finals(0)[unseen]).mean())
    assert errors["knowing"] < 0.5 * errors["none"]
    assert errors["shuffled"] < 1.5 * errors["none"]


def test_a_mean_has_no_slope_without_observations_or_against_the_prediction():
    predicted = np.array([0.0, 1.0, 2.0, 5.0])
    assert linear_mean(predicted, np.empty(0, dtype=np.intp), np.empty(0)).tolist() == [0.0] * 4
    assert linear_mean(predicted, np.arange(2), np.array([1.0, -1.0])).tolist() == [0.0] * 4
    assert linear_mean(np.ones(4), np.arange(2), np.array([1.0, -1.0])).tolist() == [0.0] * 4
    line = linear_mean(predicted, np.arange(3), np.array([0.0, 2.0, 4.0]))
    np.testing.assert_allclose(line, 2 * 3 / 4 * (predicted - 1))


def test_few_final_losses_have_the_prior_deviation_and_many_their_own():
    aims = dataclasses.replace(TABLE.objectives, chance=0.0, best=1.0)
    mean, std = standardization(np.full(1, -0.1), aims)
    assert (mean, std) == pytest.approx((-0.3, math.sqrt((4 * 0.25**2 + 0.2**2) / 5)))
    many = np.random.default_rng(0).normal(-0.4, 0.05, 4000)
    assert standardization(many, aims) == pytest.approx((-0.4, 0.05), abs=2e-3)


def test_far_worse_losses_are_clipped_and_the_order_of_the_others_stays():
    losses = np.array([-0.9, -0.8, -0.7, -0.6, 3.0])
    for own in range(6):
        clipped = np.concatenate(clip_outliers(losses[:own], losses[own:]))
        assert clipped.tolist() == pytest.approx([-0.9, -0.8, -0.7, -0.6, -0.7 + 2 * 0.2])
    assert [each.tolist() for each in clip_outliers(np.empty(0), np.empty(0))] == [[], []]


def next_step(sampler, pruner, known, *, fresh=(), may_start=True, repeats=False):
    proposer = proposer_of(sampler, pruner, lambda history: list(fresh))
    return proposer.propose(known, may_start=may_start, repeats=repeats)


RANDOM = optuna.samplers.RandomSampler()


def test_a_proposal_follows_from_sampler_pruner_and_history():
    promising = int(np.argmax(TABLE.finals(0)))
    known, with_paused = history([0, 2, 4, 6]), history([0, 2, 4, 6], paused=[promising])
    new = candidate(1)
    start, resume = Start(new.parameters), Resume(100 + promising)
    assert next_step(RANDOM, NoPruner(), known) == Sample()
    assert next_step(RANDOM, NoPruner(), known, fresh=[new], repeats=True) == start
    assert next_step(RANDOM, NoPruner(), known, repeats=True) == Done()
    assert next_step(RANDOM, NoPruner(), known, fresh=[new], may_start=False) == Done()
    assert next_step(RANDOM, NoPruner(), with_paused, may_start=False) == Done(), "this rule never resumes"
    assert next_step(RANDOM, GAIN_RATE, with_paused, may_start=False) == resume
    assert next_step(RANDOM, GAIN_RATE, with_paused, repeats=True) == resume
    assert next_step(SURROGATE, GAIN_RATE, with_paused, may_start=False) == resume
    assert next_step(SURROGATE, NoPruner(), known, fresh=[new]) == start
    assert next_step(SURROGATE, NoPruner(), known) == Done()
    assert len(FINITE["attention"]) == 2
