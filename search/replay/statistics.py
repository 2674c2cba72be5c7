"""Statistics of replays: medians with bootstrap intervals, ratios, mean ranks and paired tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata, studentized_range, wilcoxon

from search.pareto import Floats
from search.replay.simulation import Outcome

RESAMPLES = 2000
Key = tuple[str, str]  # strategy and table


def group(outcomes: Sequence[Outcome]) -> dict[Key, list[Outcome]]:
    """The outcomes of each strategy on each table, in order of seed."""
    groups: dict[Key, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda each: each.seed):
        groups.setdefault((outcome.strategy, outcome.table), []).append(outcome)
    return groups


def median_interval(times: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """The median and its 95 % bootstrap interval; the time of a miss is infinite."""
    values = np.asarray(times)
    samples = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    medians = np.sort(_medians(values[samples]))
    return (
        float(_medians(values[None])[0]),
        float(medians[int(0.025 * RESAMPLES)]),
        float(medians[int(0.975 * RESAMPLES)]),
    )


def _medians(rows: Floats) -> Floats:
    """Medians of rows; of an even number the upper one, because the mean of two infinities is NaN."""
    return np.asarray(np.sort(rows, axis=1)[:, rows.shape[1] // 2])


def median_ratio(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], *, seed: int = 0
) -> tuple[float, float, float]:
    """Geometric mean over tables of the ratio of median times ``(tables, seeds)``, with its 95 % bootstrap interval."""
    random = np.random.default_rng(seed)
    logs = np.zeros(RESAMPLES + 1)
    for mine, other in zip(ours, theirs, strict=True):
        a, b = np.asarray(mine), np.asarray(other)
        samples = np.vstack([np.arange(len(a)), random.integers(len(a), size=(RESAMPLES, len(a)))])  # paired by seed
        with np.errstate(invalid="ignore"):
            logs += np.log(_medians(a[samples]) / _medians(b[samples])) / len(ours)
    resampled = np.sort(logs[1:])
    low, high = resampled[int(0.025 * RESAMPLES)], resampled[int(0.975 * RESAMPLES)]
    return float(np.exp(logs[0])), float(np.exp(low)), float(np.exp(high))


def wilcoxon_holm(times: Mapping[str, Sequence[float]], reference: str) -> dict[str, float]:
    """Holm-adjusted p-values of Wilcoxon signed-rank tests of all strategies against one, paired by table and seed."""
    base = _finite(times[reference])
    raw = {}
    for name, values in times.items():
        if name != reference:
            difference = np.log(_finite(values)) - np.log(base)
            raw[name] = float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0
    adjusted, worst = {}, 0.0
    for place, name in enumerate(sorted(raw, key=raw.__getitem__)):
        worst = max(worst, min(1.0, raw[name] * (len(raw) - place)))
        adjusted[name] = worst
    return adjusted


def _finite(times: Sequence[float]) -> Floats:
    """Replace infinite times of misses by a finite one, longer than any other."""
    return np.minimum(np.asarray(times, dtype=np.float64), 1e9)


def average_ranks(times: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], float]:
    """Mean ranks of strategies over tables and seeds, 1 the fastest, and Nemenyi's critical difference at 5 %.

    Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", 2006, section 3.2.2.
    """
    matrix = np.array([_finite(values) for values in times.values()])
    ranks = np.apply_along_axis(rankdata, 0, matrix).mean(axis=1)
    k, n = matrix.shape
    difference = studentized_range.ppf(0.95, k, math.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    return dict(zip(times, ranks.tolist(), strict=True)), float(difference)


def regret(outcomes: Sequence[Outcome], seconds: Floats) -> Floats:
    """Median over outcomes of the hypervolume regret ``(seconds,)``: 1 - hypervolume / true hypervolume."""
    curves = []
    for outcome in outcomes:
        times = np.array([entry[0] for entry in outcome.trace])
        shares = np.array([0.0, *(entry[2] for entry in outcome.trace)])
        curves.append(1.0 - shares[np.searchsorted(times, seconds, side="right")])
    return np.asarray(np.median(curves, axis=0))


def markdown(outcomes: Sequence[Outcome], *, baselines: Sequence[str], default: str, held_out: Sequence[str]) -> str:
    """The result tables in Markdown."""
    groups = group(outcomes)
    tables = list(dict.fromkeys(table for _, table in groups))
    strategies = list(dict.fromkeys(strategy for strategy, _ in groups))
    lines = []
    for table in tables:
        note = ", held out from tuning" if table in held_out else ""
        runs = len(groups[strategies[0], table])
        lines += ["", f"### {table}{note}: CPU-seconds, {runs} seeds", ""]
        lines += [
            "| strategy | to 99 % (95 % interval) | to 95 % | epochs to 99 % | anytime regret | missed | front lost "
            "| overhead |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for strategy in strategies:
            each = groups[strategy, table]
            middle, low, high = median_interval([outcome.reached(0.99) for outcome in each])
            lines.append(
                f"| {strategy} | {middle:.0f} ({low:.0f} to {high:.0f}) "
                f"| {median_interval([outcome.reached(0.95) for outcome in each])[0]:.0f} "
                f"| {median_interval([outcome.reached(0.99, epochs=True) for outcome in each])[0]:.0f} "
                f"| {np.mean([outcome.anytime_regret() for outcome in each]):.3f} "
                f"| {np.mean([math.isinf(outcome.reached(0.99)) for outcome in each]):.0%} "
                f"| {np.mean([outcome.lost > 0 for outcome in each]):.0%} "
                f"| {np.median([outcome.own_s for outcome in each]):.1f} |"
            )
    everything = {
        strategy: [outcome.reached_or_limit(0.99) for table in tables for outcome in groups[strategy, table]]
        for strategy in strategies
    }
    adjusted = wilcoxon_holm(everything, default)
    ranks, difference = average_ranks(everything)
    lines += [
        "",
        f"### All tables: time to 99 %, rank (critical difference {difference:.2f}), p against {default}",
        "",
    ]
    lines += [f"| strategy | {' | '.join(f'ratio to {base}' for base in baselines)} | mean rank | p | anytime regret |"]
    lines += ["|---|" + "---|" * (len(baselines) + 3)]
    for strategy in sorted(strategies, key=ranks.__getitem__):
        cells = []
        for base in baselines:
            middle, low, high = median_ratio(
                [[outcome.reached_or_limit(0.99) for outcome in groups[strategy, table]] for table in tables],
                [[outcome.reached_or_limit(0.99) for outcome in groups[base, table]] for table in tables],
            )
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        p = f"{adjusted[strategy]:.1e}" if strategy in adjusted else ""
        anytime = np.mean([outcome.anytime_regret() for table in tables for outcome in groups[strategy, table]])
        lines.append(f"| {strategy} | {' | '.join(cells)} | {ranks[strategy]:.1f} | {p} | {anytime:.3f} |")
    return "\n".join(lines).strip()
