"""Statistics of replays, and the command that prints them."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from csv_files import table

from search import compare
from search.replay.simulation import Outcome
from search.replay.statistics import average_ranks, holm, interval, markdown, ratio, regret
from search.replay.table import write

INF = math.inf


def outcomes(name, times, made="t"):
    return [
        Outcome(name, made, seed, trace=[(time / 2, 5, 0.9), *([(time, 9, 0.995)] if time < INF else [])])
        for seed, time in enumerate(times)
    ]


def test_reached_is_the_first_time_and_infinite_if_never():
    (outcome,) = outcomes("a", [8.0])
    assert (outcome.reached(0.5), outcome.reached(0.99), outcome.reached(0.999)) == (4.0, 8.0, INF)
    assert outcome.reached(0.99, epochs=True) == 9


def test_the_interval_holds_the_median_and_misses_are_infinite():
    middle, low, high = interval(np.random.default_rng(0).normal(100, 10, 400).tolist())
    assert low < middle < high
    assert 97 < low < high < 103
    assert interval([5.0] * 9) == (5.0, 5.0, 5.0)
    assert interval([1.0, INF, INF])[0] == INF
    assert interval([1.0, 1.0, INF])[0] == 1.0


def test_a_ratio_is_the_geometric_mean_over_tables():
    middle, low, high = ratio([[1.0] * 5, [4.0] * 5], [[2.0] * 5, [2.0] * 5])
    assert (middle, low, high) == pytest.approx((1.0, 1.0, 1.0))
    assert ratio([[INF] * 5], [[2.0] * 5])[0] == INF


def test_holm_multiplies_by_what_is_left_and_never_falls():
    random = np.random.default_rng(0)
    base = random.uniform(50, 100, 40)
    times = {"ours": base, "same": base, "near": base * random.uniform(0.97, 1.05, 40), "far": base * 2}
    adjusted = holm(times, "ours")
    assert adjusted["same"] == 1.0
    assert adjusted["far"] < 1e-6
    assert adjusted["far"] <= adjusted["near"] <= adjusted["same"]


def test_ranks_of_a_known_order_and_nemenyis_difference():
    ranks, difference = average_ranks({"a": [1.0, 1.0, 2.0], "b": [2.0, 2.0, 1.0], "c": [INF, INF, INF]})
    assert ranks == pytest.approx({"a": 4 / 3, "b": 5 / 3, "c": 3.0})
    assert difference == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 3)), rel=1e-3)  # Demsar 2006, table 5


def test_regret_is_what_was_missing_at_the_time():
    assert regret(outcomes("a", [8.0]), np.array([1.0, 4.0, 7.9, 8.0, 99.0])) == pytest.approx(
        [1.0, 0.1, 0.1, 0.005, 0.005]
    )


def test_the_text_names_every_strategy_table_and_the_held_out():
    made = [
        each
        for name, time in (("a", 10.0), ("b", 20.0), ("c", INF))
        for where in ("t", "u")
        for each in outcomes(name, [time, time + 1, time + 2], where)
    ]
    text = markdown(made, baselines=["b"], ours="a", held_out=["u"])
    assert "### u, held out from all tuning: CPU-seconds, 3 seeds" in text
    assert "| a | 11 (10 to 12) | 11 | 9 | 0% | 0% | 0.0 |" in text
    assert "| c | inf (inf to inf) | inf | inf | 100% | 0% | 0.0 |" in text
    assert "| a | 0.52 (0.5" in text


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(table(), tmp_path / "made.json.gz")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["search.compare", *arguments])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_a_page_without_links(command, tmp_path):
    code, out, _ = command(
        "made.json.gz", "--seeds", "2", "--jobs", "1", "--strategies", "random+none", "surrogate+gain_rate", "oracle"
    )
    assert code in (0, None)
    assert "surrogate+gain_rate" in out
    page = (tmp_path / "comparison.html").read_text()
    assert "critical difference" in page
    assert "src=" not in page.split("<h1>")[1].replace("data-src", "").split("Plotly.newPlot")[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json.gz"], "none.json.gz: no recorded table"),
        (["made.json.gz", "--seeds", "0"], "--seeds=0: it must be at least 1"),
        (["made.json.gz", "--strategies", "tpe+hope"], "tpe+hope: there is no pruner 'hope'; there are accuracy_only"),
        (["made.json.gz", "--strategies", "luck+none"], "luck+none: there is no sampler 'luck'; there are gp"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_replayed(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
