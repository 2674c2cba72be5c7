"""Ratios of times, the length from which one mechanism is faster than another, and the tables."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spaces.bench.implementations import BASELINE, Implementation
from spaces.bench.measure import PASSES, Measurement

COLUMNS = ("implementation", "mechanism", "package", "length", "pass", "ms", "ratio", "ratio_q1", "ratio_q3", "peak_mb")
Results = Mapping[tuple[str, int], Measurement]  # by name and length


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """The spread of the ratios within each round; a disturbance of a round affects both sides."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    if len(ratios) == 1:
        return Spread(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio_of(results: Results, name: str, to: str, length: int, pass_: str) -> Spread | None:
    """The time of ``name`` over the time of ``to``; None where one of them was not measured."""
    numerator, denominator = results.get((name, length)), results.get((to, length))
    if numerator is None or denominator is None:
        return None
    return ratio(numerator.seconds[pass_], denominator.seconds[pass_])


def crossover_length(ratios: Mapping[int, float]) -> str:
    """The length from which on the ratio, by length, stays below 1; interpolated on logarithmic axes."""
    lengths = sorted(ratios)
    if not lengths:
        return "-"
    slower = [length for length in lengths if ratios[length] > 1]
    if not slower:
        return f"<= {lengths[0]}"
    if slower[-1] == lengths[-1]:
        return f"> {lengths[-1]}"
    before, after = slower[-1], lengths[lengths.index(slower[-1]) + 1]
    share = math.log(ratios[before]) / (math.log(ratios[before]) - math.log(ratios[after]))
    return f"{before * (after / before) ** share:.0f}"


def softmax_baseline(each: Implementation) -> str:
    """The softmax implementation to compare with: causal softmax for a causal mechanism."""
    return BASELINE + "-causal" * each.causal


def tables(implementations: Sequence[Implementation], lengths: Sequence[int], results: Results) -> str:
    """All tables, as plain text."""
    parts = []
    for pass_ in PASSES:
        rows = [
            [each.name, *(_over_softmax(results, each.name, length, pass_) for length in lengths)]
            for each in implementations
            if any((each.name, length) in results for length in lengths)
        ]
        title = f"{pass_}: times the seconds of softmax at the same length, median (quartiles); softmax itself in ms"
        parts.append(_table(title, ["", *map(str, lengths)], rows))
    for pass_ in PASSES:
        rows = [
            [f"{each.setting} over {each.label}", *(_speedup(results, each, length, pass_) for length in lengths)]
            for each in implementations
            if each.label and any(ratio_of(results, each.name, each.setting, length, pass_) for length in lengths)
        ]
        if rows:
            parts.append(_table(f"{pass_}: how many times as fast as a package", ["", *map(str, lengths)], rows))
    rows = [
        [each.name, *(_megabytes(results.get((each.name, length))) for length in lengths)]
        for each in implementations
        if any((each.name, length) in results for length in lengths)
    ]
    parts.append(_table("forward+backward: peak memory it adds, MB", ["", *map(str, lengths)], rows))
    rows = [
        [each.name, *(crossover_length(_medians(results, each, lengths, pass_)) for pass_ in PASSES)]
        for each in implementations
        if each.mechanism != BASELINE and any((each.name, length) in results for length in lengths)
    ]
    if rows:
        parts.append(
            _table(
                "length from which on it is faster than softmax (causal softmax if it is causal)", ["", *PASSES], rows
            )
        )
    return "\n\n".join(parts)


def _medians(results: Results, each: Implementation, lengths: Iterable[int], pass_: str) -> dict[int, float]:
    found = {length: ratio_of(results, each.name, softmax_baseline(each), length, pass_) for length in lengths}
    return {length: spread.median for length, spread in found.items() if spread}


def _over_softmax(results: Results, name: str, length: int, pass_: str) -> str:
    if name == BASELINE and (name, length) in results:
        return f"{1000 * statistics.median(results[name, length].seconds[pass_]):.3g} ms"
    return str(ratio_of(results, name, BASELINE, length, pass_) or "-")


def _speedup(results: Results, peer: Implementation, length: int, pass_: str) -> str:
    return str(ratio_of(results, peer.name, peer.setting, length, pass_) or "-")


def _megabytes(measurement: Measurement | None) -> str:
    return "-" if measurement is None or measurement.peak_bytes is None else f"{measurement.peak_bytes / 1e6:.0f}"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain-text table; the first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])

    return "\n".join([title, line(header), *map(line, rows)])


def write_csv(path: Path, implementations: Iterable[Implementation], lengths: Iterable[int], results: Results) -> None:
    """One row for each implementation, length and pass."""
    lengths = list(lengths)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for each in implementations:
            for length in lengths:
                measurement = results.get((each.name, length))
                if measurement is None:
                    continue
                peak = "" if measurement.peak_bytes is None else f"{measurement.peak_bytes / 1e6:.1f}"
                for pass_ in PASSES:
                    ms = 1000 * statistics.median(measurement.seconds[pass_])
                    spread = ratio(measurement.seconds[pass_], results[BASELINE, length].seconds[pass_])
                    ratios = [f"{value:.4g}" for value in (spread.median, spread.low, spread.high)]
                    writer.writerow([each.name, each.mechanism, each.label, length, pass_, f"{ms:.4g}", *ratios, peak])
