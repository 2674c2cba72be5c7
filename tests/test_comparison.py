"""Statistics of replays, and the command ``python -m search.compare``."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from csv_files import table

from search import compare
from search.replay import peers
from search.replay.simulation import Outcome, Replay, Strategy
from search.replay.statistics import average_ranks, markdown, median_interval, median_ratio, regret, wilcoxon_holm
from search.replay.table import write
from search.replay.tables import public, shipped

INF = math.inf


def outcomes(name, times, made="t"):
    return [
        Outcome(
            name,
            made,
            seed,
            trace=[(time / 2, 5, 0.9), (time, 9, 0.995)] if time < INF else [(15.0, 5, 0.9)],
            first_s=1.0,
            limit_s=100.0,
        )
        for seed, time in enumerate(times)
    ]


def test_reached_is_the_first_time_or_infinite():
    (outcome,) = outcomes("a", [8.0])
    assert (outcome.reached(0.5), outcome.reached(0.99), outcome.reached(0.999)) == (4.0, 8.0, INF)
    assert outcome.reached(0.99, epochs=True) == 9


def test_the_bootstrap_interval_contains_the_median_and_misses_are_infinite():
    middle, low, high = median_interval(np.random.default_rng(0).normal(100, 10, 400).tolist())
    assert low < middle < high
    assert 97 < low < high < 103
    assert median_interval([5.0] * 9) == (5.0, 5.0, 5.0)
    assert median_interval([1.0, INF, INF])[0] == INF
    assert median_interval([1.0, 1.0, INF])[0] == 1.0


def test_the_ratio_is_the_geometric_mean_over_tables():
    middle, low, high = median_ratio([[1.0] * 5, [4.0] * 5], [[2.0] * 5, [2.0] * 5])
    assert (middle, low, high) == pytest.approx((1.0, 1.0, 1.0))
    assert median_ratio([[INF] * 5], [[2.0] * 5])[0] == INF


def test_holm_adjusted_p_values_are_ordered_and_at_most_1():
    random = np.random.default_rng(0)
    base = random.uniform(50, 100, 40)
    times = {"ours": base, "same": base, "near": base * random.uniform(0.97, 1.05, 40), "far": base * 2}
    adjusted = wilcoxon_holm(times, "ours")
    assert adjusted["same"] == 1.0
    assert adjusted["far"] < 1e-6
    assert adjusted["far"] <= adjusted["near"] <= adjusted["same"]


def test_mean_ranks_and_critical_difference_of_a_known_order():
    ranks, difference = average_ranks({"a": [1.0, 1.0, 2.0], "b": [2.0, 2.0, 1.0], "c": [INF, INF, INF]})
    assert ranks == pytest.approx({"a": 4 / 3, "b": 5 / 3, "c": 3.0})
    assert difference == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 3)), rel=1e-3)  # Demsar 2006, table 5


def test_regret_is_1_minus_the_share_of_hypervolume_at_the_time():
    assert regret(outcomes("a", [8.0]), np.array([1.0, 4.0, 7.9, 8.0, 99.0])) == pytest.approx(
        [1.0, 0.1, 0.1, 0.005, 0.005]
    )


@pytest.mark.parametrize(
    "trace",
    [
        [],
        [(0.1, 1, 0.3), (2.0, 2, 0.5), (2.0, 3, 0.6), (30.0, 9, 0.995)],  # the first before the shortest training
        [(1.0, 1, 0.2), (50.0, 9, 0.9), (100.5, 9, 0.95)],  # the last was begun before the end of the search
    ],
)
def test_anytime_regret_is_the_mean_log_time_to_all_shares_of_hypervolume(trace):
    outcome = Outcome("a", "t", 0, trace=trace, first_s=0.5, limit_s=100.0)
    targets = (np.arange(10_000) + 0.5) / 10_000
    times = [max(outcome.reached_or_limit(share), 0.5) for share in targets]
    assert outcome.anytime_regret() == pytest.approx(np.log(np.array(times) / 0.5).mean() / np.log(200.0), abs=1e-4)


def test_the_markdown_lists_all_strategies_and_marks_held_out_tables():
    made = [
        each
        for name, time in (("a", 10.0), ("b", 20.0), ("c", INF))
        for where in ("t", "u")
        for each in outcomes(name, [time, time + 1, time + 2], where)
    ]
    text = markdown(made, baselines=["b"], default="a", held_out=["u"])
    assert "### u, held out from tuning: CPU-seconds, 3 seeds" in text
    assert "| a | 11 (10 to 12) | 11 | 9 | 0.387 | 0% | 0% | 0.0 |" in text
    assert "| c | inf (inf to inf) | inf | inf | 0.629 | 100% | 0% | 0.0 |" in text
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


def test_one_of_the_shipped_tables_and_half_of_the_public_ones_are_held_out_as_the_readme_lists():
    assert len(set(compare.HELD_OUT) & set(shipped())) == 1
    assert 2 * len(set(compare.HELD_OUT) & set(public())) == len(public())
    readme = (Path(__file__).parents[1] / "search/replay/README.md").read_text()
    section = readme.split("## Held-out tables")[1].split("##")[0]
    assert tuple(re.findall(r"`([\w-]+)`", section)) == compare.HELD_OUT


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_an_offline_page(command, tmp_path):
    code, out, _ = command(
        "made.json.gz", "--seeds", "2", "--jobs", "1", "--strategies", "random+none", "surrogate+gain_rate", "oracle"
    )
    assert code in (0, None)
    assert "surrogate+gain_rate" in out
    page = (tmp_path / "comparison.html").read_text()
    assert "critical difference" in page
    assert page.count("<svg ") == 2
    assert len(page) < 200_000
    assert [word for word in ("src=", "<script", "url(http") if word in page] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json.gz"], "none.json.gz: no such table or file"),
        (["made.json.gz", "--seeds", "0"], "--seeds=0: it must be at least 1"),
        (["made.json.gz", "--strategies", "tpe+hope"], "tpe+hope: unknown pruner 'hope'; known: accuracy_only"),
        (["made.json.gz", "--strategies", "luck+none"], "luck+none: unknown sampler 'luck'; known: gp"),
        (["made.json.gz", "--strategies", "qnehvi+none"], "qnehvi: the package botorch is missing; pip install"),
        (["made.json.gz", "--strategies", "tpe+syne_moasha"], "syne_moasha: the package syne_tune is missing"),
    ],
)
def test_invalid_arguments_are_rejected_before_any_replay(command, arguments, message, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(("name", "package"), [("random+syne_moasha", "syne_tune"), ("tpe+moasha", "")])
def test_a_pruner_of_another_package_finishes_a_search_where_it_is_installed(name, package):
    if package:
        pytest.importorskip(package, reason="an extra: pip install 'paretoformer[baselines]'")
    outcome = Replay(table(), Strategy(name, **compare.strategy(name)), seed=0).run()
    assert outcome.trace


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of BoTorch
def test_botorch_samples_the_parameters_of_a_study_where_it_is_installed():
    pytest.importorskip("botorch", reason="an extra: pip install 'paretoformer[baselines]'")
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=peers.QNEHVI(seed=0))
    study.optimize(lambda trial: ((x := trial.suggest_float("x", 0.0, 1.0)) * (2 - x), x**2), n_trials=11)
    assert 0 <= study.trials[-1].params["x"] <= 1
