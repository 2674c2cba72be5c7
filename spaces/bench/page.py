"""The measurements as curves over the length, in one offline file."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from spaces.bench.implementations import Implementation
from spaces.bench.measure import PASSES, Measured
from spaces.bench.report import BASELINE, Results, ratio_of

# Okabe and Ito's palette, which colour-blind readers can tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
DASHES = ("solid", "dash", "dot", "dashdot")


def write_page(
    path: Path, text: str, chosen: Sequence[Implementation], lengths: Sequence[int], results: Results
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
        peak = results.get((name, length), Measured()).peak_bytes
        return peak / 1e6 if peak else None

    figures = [
        *(
            _figure(f"{pass_}, times the seconds of softmax", chosen, lengths, over_softmax(pass_), one=True)
            for pass_ in PASSES
        ),
        _figure(f"{PASSES[-1]}, ms", chosen, lengths, milliseconds),
        _figure(f"{PASSES[-1]}, peak memory it adds, MB", chosen, lengths, megabytes),
    ]
    plots = [
        figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures)
    ]
    style = "body{font:15px sans-serif;max-width:1200px;margin:2em auto}pre{font-size:12px;overflow-x:auto}"
    body = "\n".join([*plots, f"<pre>{escape(text)}</pre>"])
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Mechanisms measured</title>'
        f"<style>{style}</style><h1>Mechanisms measured</h1>{body}</html>"
    )


def _figure(
    title: str,
    chosen: Sequence[Implementation],
    lengths: Sequence[int],
    value: Callable[[str, int], float | None],
    *,
    one: bool = False,
) -> go.Figure:
    """A curve for each implementation, ours drawn through, packages thin; a colour for each setting."""
    figure = go.Figure()
    settings = list(dict.fromkeys(each.setting for each in chosen))
    for each in chosen:
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
    if one:
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
