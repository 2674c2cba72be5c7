"""The Gaussian process against scikit-learn, and its features and hyperparameters."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from csv_files import table
from scipy.special import ndtr
from scipy.stats import multivariate_normal, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from search.acquisition import _expected_improvement
from search.samplers.candidates import Candidate
from search.samplers.encoding import CATEGORY_DISTANCE, Encoder, encode
from search.samplers.gaussian_process import (
    JITTER,
    LENGTHSCALE,
    LENGTHSCALE_BOUNDS,
    MIN_FIT,
    NUGGET,
    NUGGET_BOUNDS,
    GaussianProcess,
    fit_hyperparameters,
    rbf_kernel,
)
from search.study.records import Record, State
from spaces.architecture import features

OWNERS = np.arange(3)


def tables():
    return [features(each) for each in table().architectures]


@pytest.mark.parametrize("names", [["softmax"], ["softmax", "linear"]])
def test_a_trial_and_a_candidate_of_the_same_architecture_have_the_same_features(names):
    architecture = {"pattern": names, "model": {"depth": len(names)}, "attention": {}, "train": {}}
    trial, candidate = Record(0, State.COMPLETE, architecture=architecture), Candidate({}, architecture, lambda _: {})
    encoded, _, count = encode([trial.settings, candidate.settings])
    assert (encoded[0] == encoded[1]).all()
    assert count == 0, "nothing differs"


def test_two_values_of_a_categorical_setting_are_sqrt_2_apart_and_numbers_up_to_1():
    features, owners, count = encode(tables())
    assert features.shape == (48, len(owners))
    assert count == 5
    distances = [
        (((features[:, None, owners == owner] - features[None, :, owners == owner]) ** 2).sum(axis=2)).max()
        for owner in range(count)
    ]
    assert distances == pytest.approx([1.0, 1.0, 1.0, 2.0, 1.0])


def test_settings_of_other_mechanisms_lists_and_constant_settings_are_encoded():
    features, owners, count = encode(
        [{"a": 1, "b": [1, 2], "c": 5}, {"a": 4, "b": [1], "c": 5}, {"b": [1], "c": 5}, {"a": 2, "b": None, "c": 5}]
    )
    assert (count, owners.tolist()) == (2, [0, 1, 1, 1])
    assert features[:, 0].tolist() == [0.0, 1.0, 0.5, 0.5]
    assert encode([{"a": 1}])[0].shape == (1, 0)
    assert encode([{}, {}])[2] == 0


def test_what_was_encoded_before_gets_the_features_of_a_new_encoder():
    values = [1, 2, 0.5, 7, None, "a", [1, 2], ("a",), ("a", "b"), -1]
    random, encoder = np.random.default_rng(0), Encoder()
    held = []
    for step in range(60):
        kinds = [values[:4], values[4:], values, [1, 1], ["a", "b", ("a", "c")]]
        table = {
            name: kinds[i][random.integers(len(kinds[i]))] for i, name in enumerate("edcba") if random.random() < 0.9
        }
        if step % 3:
            table["train.epochs"] = step % 5
        each = SimpleNamespace(settings=table, costs={"flops": 1.0 + step})
        held = [*held, each][-12:] if step % 20 else [each, each]
        some = [held[i] for i in random.permutation(len(held))]
        found, expected = encoder.encode(some), encode([each.settings for each in some])
        assert [np.asarray(each).tolist() for each in found[:3]] == [np.asarray(each).tolist() for each in expected]
        assert found.flops.tolist() == [each.costs["flops"] for each in some]
        np.testing.assert_array_equal(found.epochs, [each.settings.get("train.epochs", np.nan) for each in some])
        assert len(encoder._described) <= 4 * len(some), "others are forgotten"


def test_the_distance_of_two_patterns_is_the_share_of_blocks_that_differ():
    patterns = [("a",), ("a", "a"), ("b",), ("a", "b"), ("a", "b", "c", "b"), ("c", "b", "b", "a"), None]
    features, owners, count = encode([{"pattern": each} for each in patterns])
    assert (count, set(owners)) == (1, {0})
    squared = ((features[:, None] - features) ** 2).sum(axis=2)
    for i, one in enumerate(patterns):
        for j, other in enumerate(patterns):
            pairs = zip((one or (None,)) * 12, (other or (None,)) * 12, strict=False)
            differ = [x != y for (x, y), _ in zip(pairs, range(4), strict=False)]
            assert squared[i, j] == pytest.approx(2 * sum(differ) / 4), (one, other)


def test_the_kernel_is_positive_semidefinite_and_1_on_the_diagonal():
    features, owners, count = encode(tables())
    kernel = rbf_kernel(features, features, np.linspace(0.5, 2.0, count)[owners])
    assert np.linalg.eigvalsh(kernel).min() > -1e-9
    assert np.diag(kernel) == pytest.approx(np.ones(48))


def random_points(count, settings=3):
    """Points, noisy standardized losses that depend on the first setting, and the variances of observations."""
    random = np.random.default_rng(0)
    points = random.random((count, settings))
    losses = np.sin(6 * points[:, 0]) + 0.1 * random.normal(size=count)
    return points, (losses - losses.mean()) / losses.std(), random.uniform(0.0, 0.1, count)


@pytest.mark.parametrize("nugget", [NUGGET, 0.3])
def test_the_posterior_equals_that_of_scikit_learn(nugget):
    points, losses, noise = random_points(20)
    lengthscales, train = np.array([0.5, 1.0, 2.0]), 12
    kernel = rbf_kernel(points, points[:train], lengthscales)
    process = GaussianProcess(kernel[:train], losses[:train], noise[:train], nugget)
    reference = GaussianProcessRegressor(RBF(lengthscales), alpha=noise[:train] + nugget + JITTER, optimizer=None)
    expected_mean, expected_std = reference.fit(points[:train], losses[:train]).predict(points, return_std=True)
    np.testing.assert_allclose(process.mean(kernel), expected_mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(process.variance(kernel), expected_std**2 + nugget, rtol=0, atol=1e-8)


def test_the_variance_given_the_first_observations_is_theirs_and_an_upper_bound():
    points, losses, noise = random_points(40)
    kernel = rbf_kernel(points, points, np.array([0.5, 1.0, 2.0]))
    process = GaussianProcess(kernel, losses, noise, NUGGET)
    for first in (1, 7, 40, 99):
        alone = GaussianProcess(kernel[:first, :first], losses[:first], noise[:first], NUGGET)
        bound = process.variance(kernel, first=first)
        np.testing.assert_allclose(bound, alone.variance(kernel[:, :first]), rtol=1e-9)
        assert (process.variance(kernel) <= bound * (1 + 1e-9)).all()


def test_fitted_hyperparameters_have_a_high_posterior_density():
    points, losses, _ = random_points(30)

    def log_density(lengthscales, nugget):
        covariance = rbf_kernel(points, points, lengthscales) + (nugget + JITTER) * np.eye(30)
        prior = norm(np.log(LENGTHSCALE), np.sqrt(2)).logpdf(np.log(lengthscales)).sum()
        prior += norm(np.log(NUGGET) / 2, np.sqrt(2)).logpdf(np.log(nugget) / 2)
        return multivariate_normal(np.zeros(30), covariance).logpdf(losses) + prior

    lengthscales, nugget = fit_hyperparameters(points, OWNERS, 3, losses)
    random = np.random.default_rng(1)
    draws = np.exp(random.uniform(*np.log(LENGTHSCALE_BOUNDS), (100, 3)))
    nuggets = np.exp(random.uniform(*np.log(NUGGET_BOUNDS), 100))
    assert log_density(lengthscales, nugget) > np.quantile(list(map(log_density, draws, nuggets)), 0.95)
    assert lengthscales[0] < min(lengthscales[1:])  # the only setting that matters


def test_the_nugget_grows_with_the_noise():
    points, losses, _ = random_points(60)
    noisy = losses + np.random.default_rng(2).normal(0.0, 1.0, 60)
    nuggets = [fit_hyperparameters(points, OWNERS, 3, each / each.std())[1] for each in (losses, noisy)]
    assert nuggets[0] < 0.1 < nuggets[1]


def test_hyperparameters_are_not_fitted_to_few_observations():
    points, losses, _ = random_points(MIN_FIT - 1)
    lengthscales, nugget = fit_hyperparameters(points, OWNERS, 3, losses)
    assert (lengthscales.tolist(), nugget) == ([LENGTHSCALE] * 3, NUGGET)


def test_what_is_computed_in_place_and_once_equals_the_formulas():
    random = np.random.default_rng(0)
    x, scales = random.normal(size=(40, 5)), random.uniform(0.3, 3, 5)
    a, b = x / scales, x[:7] / scales
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    np.testing.assert_allclose(rbf_kernel(x, x[:7], scales), np.exp(-0.5 * np.maximum(squared, 0.0)), rtol=1e-12)

    mean, std, best = random.normal(size=40), random.uniform(0.1, 2, 40), random.normal(size=9)
    z = (best - mean[:, None]) / std[:, None]
    improvement = std[:, None] * (z * ndtr(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
    assert np.array_equal(_expected_improvement(best, mean, std), improvement)

    patterns = [("a",), ("a", "b"), None, ("b", "c", "a"), ("a",), None, ("c",)]
    expected = [  # a feature for each block and value, None last
        [(value or (None,))[block % len(value or (None,))] == name for value in patterns]
        for block in range(3)
        for name in ("a", "b", "c", None)
        if any((value or (None,))[block % len(value or (None,))] == name for value in patterns)
    ]
    features, _, _ = encode([{"pattern": value} for value in patterns])
    scale = CATEGORY_DISTANCE / 6**0.5
    assert sorted(features.T.tolist()) == sorted([[scale * each for each in feature] for feature in expected])
