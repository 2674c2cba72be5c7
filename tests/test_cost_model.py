"""The model of measured costs of unseen architectures, against simpler ones on costs that are known."""

import numpy as np
import pytest
from tiny_task import measured_study

from search.costs import predicted
from search.costs.__main__ import main
from search.costs.predicted import least_squares, proportional, score
from search.samplers.cost_model import fit_cost, predict_cost
from search.samplers.encoding import encode


def networks(count, seed=0):
    """Features, log FLOPs and log milliseconds of networks of which two mechanisms differ in speed with the width."""
    generator = np.random.default_rng(seed)
    tables = [
        {"pattern": str(generator.choice(["a", "b"])), "width": int(generator.integers(8, 65))} for _ in range(count)
    ]
    size = np.array([2 * np.log(table["width"]) for table in tables])
    extra = np.array([0.3 * np.log(table["width"]) if table["pattern"] == "a" else 1.0 for table in tables])
    return encode(tables), size, 0.5 * size + extra + 0.01 * generator.standard_normal(count)


def test_costs_proportional_to_a_power_of_the_flops_are_predicted_exactly():
    (features, owners, count), size, _ = networks(20)
    log_y = 0.7 * size + 3.0
    fitted = fit_cost(features, owners, count, size, log_y[:10], np.arange(10))
    np.testing.assert_allclose(predict_cost(features, owners, size, log_y[:10], fitted), log_y, atol=1e-9)


def test_a_cost_that_differs_by_mechanism_and_size_is_predicted_better_than_by_simpler_models():
    (features, owners, count), size, log_y = networks(90)

    def gaussian_process(features, size, n, log_ms):
        return predict_cost(
            features, owners, size, log_ms, fit_cost(features, owners, count, size, log_ms, np.arange(n))
        )

    methods = {"ours": gaussian_process, "least squares": least_squares, "FLOPs": proportional}
    error = {name: scores[:, 0].mean() for name, scores in score(methods, features, size, log_y).items()}
    tau = {name: scores[:, 1].mean() for name, scores in score(methods, features, size, log_y).items()}
    assert error["ours"] < 0.5 * error["least squares"] < 0.5 * error["FLOPs"]
    assert tau["ours"] > tau["least squares"] > tau["FLOPs"]


def test_least_squares_and_proportional_predict_what_they_assume():
    (features, *_), size, _ = networks(40)
    linear = features @ np.arange(features.shape[1]) + 0.3 * size - 2
    np.testing.assert_allclose(least_squares(features, size, 30, linear[:30]), linear)
    np.testing.assert_allclose(proportional(features, size, 30, size[:30] + 5), size + 5)


@pytest.mark.slow
def test_the_command_compares_the_methods(tmp_path, capsys, monkeypatch):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    measured_study(url, 1)
    monkeypatch.setattr(predicted, "TRAINING", 2)
    assert main(["tiny", "--predicted", "2", "--storage", url]) == 0
    first, *lines = [line for line in capsys.readouterr().out.splitlines() if line][1:]
    assert first.startswith("2 networks of ")
    assert [line.split("  ")[0] for line in lines] == ["cost model", "least squares", "FLOPs"]
    assert main(["tiny", "--predicted", "500", "--storage", url]) == 2
    assert capsys.readouterr().err.startswith("--predicted 500: ")
