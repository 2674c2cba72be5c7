"""From seconds to ratios, and from ratios to the length at which one mechanism overtakes another."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spaces.bench.implementations import Implementation
from spaces.bench.measure import PASSES, Measured

BASELINE = "softmax"
COLUMNS = ("implementation", "mechanism", "package", "length", "pass", "ms", "ratio", "ratio_q1", "ratio_q3", "peak_mb")
Results = Mapping[tuple[str, int], Measured]  # by name and length


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Of the ratios in each round, which share what disturbed the round."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    if len(ratios) == 1:
        return Spread(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio_of(results: Results, name: str, to: str, length: int, pass_: str) -> Spread | None:
    """How many times as long as ``to`` takes ``name``; None where one of them was not measured."""
    numerator, denominator = results.get((name, length)), results.get((to, length))
    if numerator is None or denominator is None:
        return None
    return ratio(numerator.seconds[pass_], denominator.seconds[pass_])


def overtakes_at(ratios: Mapping[int, float]) -> str:
    """The length from which on a ratio stays below 1, between two lengths as if it were a power of the length."""
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


def softmax_of_its_kind(each: Implementation) -> str:
    """What a mechanism is to overtake: causal softmax if it is causal itself."""
    return BASELINE + "-causal" * each.causal


def tables(chosen: Sequence[Implementation], lengths: Sequence[int], results: Results) -> str:
    """All that is printed, as plain text."""
    parts = []
    for pass_ in PASSES:
        rows = [
            [each.name, *(_softmaxes(results, each.name, length, pass_) for length in lengths)]
            for each in chosen
            if any((each.name, length) in results for length in lengths)
        ]
        title = f"{pass_}: times the seconds of softmax at the same length, median (quartiles); softmax itself in ms"
        parts.append(_table(title, ["", *map(str, lengths)], rows))
    for pass_ in PASSES:
        rows = [
            [f"{each.setting} over {each.label}", *(_faster(results, each, length, pass_) for length in lengths)]
            for each in chosen
            if each.label and any(ratio_of(results, each.name, each.setting, length, pass_) for length in lengths)
        ]
        if rows:
            parts.append(_table(f"{pass_}: how many times as fast as a package", ["", *map(str, lengths)], rows))
    rows = [
        [each.name, *(_megabytes(results.get((each.name, length))) for length in lengths)]
        for each in chosen
        if any((each.name, length) in results for length in lengths)
    ]
    parts.append(_table("forward+backward: peak memory it adds, MB", ["", *map(str, lengths)], rows))
    rows = [
        [each.name, *(overtakes_at(_medians(results, each, lengths, pass_)) for pass_ in PASSES)]
        for each in chosen
        if each.mechanism != BASELINE and any((each.name, length) in results for length in lengths)
    ]
    if rows:
        parts.append(_table("tokens from which on it is faster than softmax, causal if it is", ["", *PASSES], rows))
    return "\n\n".join(parts)


def _medians(results: Results, each: Implementation, lengths: Iterable[int], pass_: str) -> dict[int, float]:
    found = {length: ratio_of(results, each.name, softmax_of_its_kind(each), length, pass_) for length in lengths}
    return {length: spread.median for length, spread in found.items() if spread}


def _softmaxes(results: Results, name: str, length: int, pass_: str) -> str:
    if name == BASELINE and (name, length) in results:
        return f"{1000 * statistics.median(results[name, length].seconds[pass_]):.3g} ms"
    return str(ratio_of(results, name, BASELINE, length, pass_) or "-")


def _faster(results: Results, peer: Implementation, length: int, pass_: str) -> str:
    return str(ratio_of(results, peer.name, peer.setting, length, pass_) or "-")


def _megabytes(measured: Measured | None) -> str:
    return "-" if measured is None or measured.peak_bytes is None else f"{measured.peak_bytes / 1e6:.0f}"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what stands in them, names on the left."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])

    return "\n".join([title, line(header), *map(line, rows)])


def write_csv(path: Path, chosen: Iterable[Implementation], lengths: Iterable[int], results: Results) -> None:
    """One row for each implementation, length and pass."""
    lengths = list(lengths)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "implementation",
                "mechanism",
                "package",
                "length",
                "pass",
                "ms",
                "ratio",
                "ratio_q1",
                "ratio_q3",
                "peak_mb",
            ]
        )
        for each in chosen:
            for length in lengths:
                measured = results.get((each.name, length))
                if measured is None:
                    continue
                peak = "" if measured.peak_bytes is None else f"{measured.peak_bytes / 1e6:.1f}"
                for pass_ in PASSES:
                    ms = 1000 * statistics.median(measured.seconds[pass_])
                    spread = ratio(measured.seconds[pass_], results[BASELINE, length].seconds[pass_])
                    ratios = [f"{value:.4g}" for value in (spread.median, spread.low, spread.high)]
                    writer.writerow([each.name, each.mechanism, each.label, length, pass_, f"{ms:.4g}", *ratios, peak])
