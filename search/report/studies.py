"""All studies of a database as a table: when, which task, the size of the front, and its best model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from optuna.study import StudyDirection
from rich.markup import escape
from rich.table import Table

from search.report.timings import format_time
from search.study.records import Objectives, Record, State, front
from search.study.store import TrialStore
from spaces.dimensions import ConfigError

CHEAP = 0.1  # of the cost of the best model
LEAST_WIDTH = {"best cheap model": 120, "best baseline": 100}  # of a terminal, for these columns
NUMBERS = ("front", "trials")
COLUMNS = ("study", "latest trial", "task", "metric", "best model", "best baseline", "best cheap model", *NUMBERS)


def studies_table(stores: Mapping[str, TrialStore], *, width: int) -> Table:
    """A row per study, the latest last, in at most ``width`` characters.

    Metrics are those on validation and, after a slash, on test.
    """
    shown = [name for name in COLUMNS if width >= LEAST_WIDTH.get(name, 0)]
    cheap = " Cheap: at most a tenth of the best model's cost." if "best cheap model" in shown else ""
    table = Table(title=f"Metrics: validation / test. Trials: complete / all.{cheap}", title_justify="left")
    for name in shown:
        wraps = name in ("study", "latest trial")
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold", no_wrap=not wraps)
    rows = {name: store.records() for name, store in stores.items()}
    latest = {name: max((each.ended_at or 0.0 for each in records), default=0.0) for name, records in rows.items()}
    for name in sorted(stores, key=lambda name: latest[name]):
        when = format_time(latest[name])[: len("2026-11-29 13:09")] if latest[name] else ""
        row = dict(zip(COLUMNS, [name, when, *_row(stores[name], rows[name])], strict=True))
        table.add_row(*(escape(row[column]) for column in shown))
    return table


def _row(store: TrialStore, records: Sequence[Record]) -> list[str]:
    complete = [record for record in records if record.state == State.COMPLETE and record.metric is not None]
    counts = f"{len(complete)}/{len(records)}"
    names = store.study.metric_names
    if names is None or not complete:
        return [_task(store), names[0] if names else "", "", "", "", "0", counts]
    metric, costs = names[0], tuple(names[1:])
    maximizes = store.study.directions[0] == StudyDirection.MAXIMIZE
    # The bounds are those of the hypervolume, which is not computed here.
    objectives = Objectives(metric, "maximize" if maximizes else "minimize", costs, 0.0, 1.0, ())
    best = objectives.best_of(complete)
    cheap = [record for record in complete if record.costs[costs[0]] <= CHEAP * best.costs[costs[0]]]
    baseline = min(store.baselines(), key=lambda each: objectives.loss(each.metrics[metric]), default=None)
    cheapest = objectives.best_of(cheap) if cheap else None
    return [
        _task(store),
        metric,
        _both(best.metric, best.test_metrics.get(metric)),
        "" if baseline is None else _both(baseline.metrics[metric], baseline.test_metrics.get(metric)),
        _both(cheapest.metric, cheapest.test_metrics.get(metric)) if cheapest else "none",
        str(len(front(records, objectives))),
        counts,
    ]


def _task(store: TrialStore) -> str:
    """The class of the task; empty of a study that search.run has not created."""
    try:
        target = store.identity()["task"]["_target_"]
    except (ConfigError, KeyError, json.JSONDecodeError):
        return ""
    return str(target).rpartition(".")[2]


def _both(validation: float | None, test: float | None) -> str:
    return f"{validation:.4f}" + ("" if test is None else f" / {test:.4f}")
