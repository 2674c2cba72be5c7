"""The measurements as plots over the length, in one HTML file without scripts."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from spaces.bench.implementations import BASELINE, Implementation
from spaces.bench.measure import PASSES, Measurement
from spaces.bench.report import Results, ratio_of

# Okabe and Ito's colour-blind safe palette.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
DASHES = ("-", "--", ":", "-.")
SIZE_IN = (12.0, 6.5)
LEGEND_ROWS = 36
STYLE = """
body { font: 15px sans-serif; max-width: 1200px; margin: 2em auto }
pre { font-size: 12px; overflow-x: auto }
svg { width: 100%; height: auto }
g.curve:hover path { stroke-width: 5px !important }
"""


def write_page(
    path: Path, text: str, implementations: Sequence[Implementation], lengths: Sequence[int], results: Results
) -> None:
    """Write the page; ``text`` holds the tables."""

    def over_softmax(pass_: str) -> Callable[[str, int], float | None]:
        def value(name: str, length: int) -> float | None:
            spread = ratio_of(results, name, BASELINE, length, pass_)
            return spread.median if spread else None

        return value

    def milliseconds(name: str, length: int) -> float | None:
        measured = results.get((name, length))
        return 1000 * statistics.median(measured.seconds[PASSES[-1]]) if measured else None

    def megabytes(name: str, length: int) -> float | None:
        peak = results.get((name, length), Measurement()).peak_bytes
        return peak / 1e6 if peak else None

    plots = {f"{pass_}, times the seconds of softmax": over_softmax(pass_) for pass_ in PASSES}
    plots |= {f"{PASSES[-1]}, ms": milliseconds, f"{PASSES[-1]}, peak memory it adds, MB": megabytes}
    drawn = [_plot(title, implementations, lengths, value) for title, value in plots.items()]
    body = "\n".join([*drawn, f"<pre>{escape(text)}</pre>"])
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark of mechanisms</title>'
        f"<style>{STYLE}</style><h1>Benchmark of mechanisms</h1>{body}</html>"
    )


@mpl.rc_context({"svg.fonttype": "none", "axes.spines.right": False, "axes.spines.top": False})
def _plot(
    title: str,
    implementations: Sequence[Implementation],
    lengths: Sequence[int],
    value: Callable[[str, int], float | None],
) -> str:
    """An SVG with one curve per implementation: its colour and dashes tell the setting, thin ones are packages.

    A browser shows the name of the curve that the mouse points at.
    """
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", title=title, xlabel="tokens")
    axes.set_xticks(lengths, list(map(str, lengths)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(color="#E6E6E6", linewidth=0.6)
    settings = list(dict.fromkeys(each.setting for each in implementations))
    for at, each in enumerate(implementations):
        points = [(length, found) for length in lengths if (found := value(each.name, length)) is not None]
        index = settings.index(each.setting)
        axes.plot(
            [length for length, _ in points],
            [found for _, found in points],
            label=each.name,
            gid=f"curve-{at}",
            color=COLOURS[index % len(COLOURS)],
            linestyle=DASHES[index // len(COLOURS) % len(DASHES)],
            linewidth=1 if each.label else 2.2,
            marker="x" if each.label else "o",
            markersize=4,
        )
    columns = 1 + (len(implementations) - 1) // LEGEND_ROWS
    figure.legend(loc="outside right upper", fontsize=7, frameon=False, ncols=columns, handlelength=3)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    for at, each in enumerate(implementations):
        curve = f'<g id="curve-{at}"'
        svg = svg.replace(f"{curve}>", f'{curve} class="curve"><title>{escape(each.name)}</title>')
    return svg
