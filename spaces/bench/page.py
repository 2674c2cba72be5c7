"""The measurements as plots over the length, in one self-contained HTML file."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from spaces.bench.implementations import BASELINE, Implementation
from spaces.bench.measure import PASSES, Measurement
from spaces.bench.report import Results, ratio_of

# Okabe and Ito's colour-blind safe palette.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
DASHES = ("solid", "dash", "dot", "dashdot")


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

    figures = [
        *(
            _figure(
                f"{pass_}, times the seconds of softmax", implementations, lengths, over_softmax(pass_), line_at_1=True
            )
            for pass_ in PASSES
        ),
        _figure(f"{PASSES[-1]}, ms", implementations, lengths, milliseconds),
        _figure(f"{PASSES[-1]}, peak memory it adds, MB", implementations, lengths, megabytes),
    ]
    plots = [
        figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures)
    ]
    style = "body{font:15px sans-serif;max-width:1200px;margin:2em auto}pre{font-size:12px;overflow-x:auto}"
    body = "\n".join([*plots, f"<pre>{escape(text)}</pre>"])
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark of mechanisms</title>'
        f"<style>{style}</style><h1>Benchmark of mechanisms</h1>{body}</html>"
    )


def _figure(
    title: str,
    implementations: Sequence[Implementation],
    lengths: Sequence[int],
    value: Callable[[str, int], float | None],
    *,
    line_at_1: bool = False,
) -> go.Figure:
    """One curve per implementation, thick for ours and thin for packages; one colour and dash per setting."""
    figure = go.Figure()
    settings = list(dict.fromkeys(each.setting for each in implementations))
    for each in implementations:
        points = [(length, found) for length in lengths if (found := value(each.name, length)) is not None]
        index = settings.index(each.setting)
        figure.add_scatter(
            name=each.name,
            x=[length for length, _ in points],
            y=[found for _, found in points],
            mode="lines+markers",
            line={
                "color": COLOURS[index % len(COLOURS)],
                "dash": DASHES[index // len(COLOURS) % len(DASHES)],
                "width": 1 if each.label else 3,
            },
            marker={"symbol": "x" if each.label else "circle"},
        )
    if line_at_1:
        figure.add_hline(y=1, line={"color": "#888", "dash": "dot"})
    axis = {"type": "log", "ticks": "outside"}
    figure.update_layout(
        template="plotly_white",
        title=escape(title),
        xaxis={**axis, "title": "tokens", "tickvals": list(lengths)},
        yaxis=axis,
        height=640,
    )
    return figure
