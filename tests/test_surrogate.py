"""The choice of the next trial: candidates, the surrogate model and the plan around both."""

from __future__ import annotations

import dataclasses

import numpy as np
import optuna
import pytest
from csv_files import FINITE, table
from scipy.stats import multivariate_normal, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from tiny_task import TREE, FirstToken

from search.acquisition import extrapolate_final_loss
from search.costs.latency import FlopsLatency
from search.costs.measured import MeasuredCosts
from search.lifecycle import Done, Resume, Sample, Start, proposer_of
from search.pruning.gain_rate import GainRate
from search.pruning.none import NoPruner
from search.samplers.candidates import Candidate, Pool
from search.samplers.surrogate import (
    JITTER,
    LENGTHSCALE,
    LENGTHSCALE_BOUNDS,
    MIN_FIT,
    NUGGET,
    SurrogateSampler,
    _fit_lengthscales,
    _posterior,
    _rbf_kernel,
    _squared_distances,
    ehvi_per_second,
)
from search.study.history import History
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
    return Candidate(TABLE.parameters[row], dict(TABLE.architectures[row]), TABLE.costs[row])


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
    assert all(set(each.costs) == {"parameters", "flops", "memory_mb"} for each in first)
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


def test_the_kernel_is_positive_semidefinite():
    squared = _squared_distances(TABLE.architectures)
    kernel = np.exp(-0.5 * squared.sum(axis=0))
    assert np.linalg.eigvalsh(kernel).min() > -1e-9
    assert np.allclose(squared, squared.transpose(0, 2, 1))
    assert np.all(squared[:, np.arange(48), np.arange(48)] == 0)
    assert squared.max(axis=(1, 2)) == pytest.approx(
        [1.0, 1.0, 1.0, 2.0, 1.0]
    )  # numerical settings, and the categorical pattern


def random_points(count, settings=3):
    """Squared distances ``(settings, count, count)`` and noisy standardized losses that depend on the first setting."""
    random = np.random.default_rng(0)
    points = random.random((count, settings))
    losses = np.sin(6 * points[:, 0]) + 0.1 * random.normal(size=count)
    squared = ((points[:, None] - points) ** 2).transpose(2, 0, 1)
    return points, squared, (losses - losses.mean()) / losses.std(), random.uniform(0.0, 0.1, count)


def test_the_posterior_equals_that_of_scikit_learn():
    points, squared, losses, noise = random_points(20)
    lengthscales, train = np.array([0.5, 1.0, 2.0]), 12
    kernel = _rbf_kernel(squared, lengthscales)[:, :train]
    mean, variance = _posterior(kernel, kernel[:train], losses[:train], noise[:train])
    reference = GaussianProcessRegressor(RBF(lengthscales), alpha=noise[:train] + NUGGET + JITTER, optimizer=None)
    expected_mean, expected_std = reference.fit(points[:train], losses[:train]).predict(points, return_std=True)
    np.testing.assert_allclose(mean, expected_mean)
    np.testing.assert_allclose(variance, expected_std**2 + NUGGET)


def test_fitted_lengthscales_have_a_high_posterior_density():
    _, squared, losses, noise = random_points(30)

    def log_density(lengthscales):
        covariance = _rbf_kernel(squared, lengthscales) + np.diag(noise + NUGGET + JITTER)
        prior = norm(np.log(LENGTHSCALE), np.sqrt(2)).logpdf(np.log(lengthscales)).sum()
        return multivariate_normal(np.zeros(30), covariance).logpdf(losses) + prior

    fitted = _fit_lengthscales(squared, losses, noise)
    draws = np.exp(np.random.default_rng(1).uniform(*np.log(LENGTHSCALE_BOUNDS), (100, 3)))
    assert log_density(fitted) > np.quantile([log_density(draw) for draw in draws], 0.95)
    assert fitted[0] < min(fitted[1:])  # the only setting that matters


def test_lengthscales_are_not_fitted_to_few_trials():
    _, squared, losses, noise = random_points(MIN_FIT - 1)
    assert _fit_lengthscales(squared, losses, noise).tolist() == [LENGTHSCALE] * 3


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


def test_unmeasured_costs_are_predicted_from_flops():
    """Of two candidates with the same settings the one with fewer FLOPs has a higher EHVI per second."""
    rows = list(range(0, 48, 2))
    expensive = dataclasses.replace(candidate(1), costs={**TABLE.costs[1], "flops": 20 * TABLE.costs[1]["flops"]})
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


def test_paused_trials_compete_with_unseen_architectures():
    fresh = [candidate(row) for row in (1, 3)]
    promising = int(np.argmax(TABLE.finals(0)))
    known = history([0, 2, 4, 6, 8], paused=[promising])
    assert SURROGATE.choose(known, [], pauses=True) == 100 + promising
    choice = SURROGATE.choose(known, fresh, pauses=False)
    assert isinstance(choice, Candidate)
    assert SURROGATE.choose(known, [], pauses=False) is None
    few = history([0], paused=[promising])
    assert SURROGATE.choose(few, fresh, pauses=True) is fresh[0]  # too few complete trials for the model


def test_a_partial_curve_is_a_noisy_observation_of_its_final_loss():
    known = history(range(0, 48, 2), paused=[1])
    row = known.row(101)
    mean, std = extrapolate_final_loss(known, np.array([row, 0]))
    assert mean[0] == pytest.approx(-TABLE.finals(0)[1], abs=3 * std[0])
    assert (mean[1], std[1]) == (known.finals[0], 0.0)


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
