"""The front as a file: a picture, or a page whose points tell what is known of their trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from search.report.figure import NONE, draw, rendered
from search.report.intervals import Sample
from search.report.rows import details
from search.report.svg import element
from search.report.timings import describe_timings
from search.study.records import Objectives, Record, State, front
from spaces.baselines import BaselineResult

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: the front</title>
<style>
body {{ margin: 0 auto; padding: .5rem; max-width: 130vh; font: 15px/1.5 system-ui, sans-serif; color: #222; }}
svg {{ width: 100%; height: auto; }}
use:hover {{ stroke: #000 !important; stroke-width: 2 !important; }}
</style>
</head>
<body>
{svg}
<p>{note}</p>
</body>
</html>
"""


def save(
    file: Path,
    records: Sequence[Record],
    objectives: Objectives,
    *,
    title: str,
    baselines: Sequence[BaselineResult] = (),
    repeated: Mapping[int, Sample] = NONE,
) -> None:
    """Write the front to ``file``, which ends in .svg, .png or .html; the arguments are those of ``draw``.

    Raises:
        OSError: it can't be written.
    """
    if file.suffix == ".html":
        file.write_text(
            html(records, objectives, title=title, baselines=baselines, repeated=repeated), encoding="utf-8"
        )
    else:
        drawn = draw(records, objectives, title=title, baselines=baselines, repeated=repeated)
        file.write_bytes(rendered(drawn, "svg" if file.suffix == ".svg" else "png"))


def html(
    records: Sequence[Record],
    objectives: Objectives,
    *,
    title: str,
    baselines: Sequence[BaselineResult] = (),
    repeated: Mapping[int, Sample] = NONE,
) -> str:
    """The plot as a page that needs no network and no script."""
    timings = describe_timings(front(records, objectives), _ended(records), objectives)
    note = f"Point at a trial for details. {timings[:1].upper()}{timings[1:]}{'.' if timings else ''}"
    svg = chart(records, objectives, title=title, baselines=baselines, repeated=repeated)
    return PAGE.format(title=escape(title), svg=svg, note=escape(note.strip()))


def chart(
    records: Sequence[Record],
    objectives: Objectives,
    *,
    title: str,
    baselines: Sequence[BaselineResult] = (),
    repeated: Mapping[int, Sample] = NONE,
    links: Mapping[int, str] | None = None,
) -> str:
    """The plot as an ``<svg>`` element; ``links`` are the targets of clicks on trials by number."""
    metric, cost = objectives.metric, objectives.costs[0]
    points = ", ".join(f"{member.costs[cost]:.4g}: {member.metric:.4f}" for member in front(records, objectives))
    return element(
        draw(records, objectives, title=title, baselines=baselines, repeated=repeated),
        f"The front, {metric} by {cost}: {points}",
        details={record.number: details(record, objectives) for record in records},
        links=links,
    )


def _ended(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.state != State.RUNNING]
