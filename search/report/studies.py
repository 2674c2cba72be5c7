"""All studies of a database as a table: the best model of each beside its baseline and the best of the cheap ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.study import StudyDirection
from rich.markup import escape
from rich.table import Table

from search.study.records import Record, State
from search.study.store import TrialStore

CHEAP = 0.1  # of the cost of the best model


def studies_table(stores: Mapping[str, TrialStore]) -> Table:
    """A row per study; metrics are those on validation and, after a slash, on test."""
    table = Table(
        title="Metrics: validation / test. Cheap: at most a tenth of the best model's cost.", title_justify="left"
    )
    for name in ("study", "metric", "best model", "best baseline", "best cheap model"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "complete"):
        table.add_column(name, justify="right")
    for name, store in stores.items():
        table.add_row(*map(escape, _row(name, store)))
    return table


def _row(name: str, store: TrialStore) -> list[str]:
    records = store.records()
    complete = [record for record in records if record.state == State.COMPLETE and record.metric is not None]
    counts = [str(len(records)), str(len(complete))]
    names = store.study.metric_names
    if names is None or not complete:
        return [name, names[0] if names else "", "", "", "", *counts]
    metric, cost = names[0], names[1]
    sign = -1 if store.study.directions[0] == StudyDirection.MAXIMIZE else 1
    best = _best(complete, sign)
    cheap = [record for record in complete if record.costs[cost] <= CHEAP * best.costs[cost]]
    baseline = min(store.baselines(), key=lambda each: sign * each.metrics[metric], default=None)
    return [
        name,
        metric,
        _both(best.metric, best.test_metrics.get(metric)),
        "" if baseline is None else _both(baseline.metrics[metric], baseline.test_metrics.get(metric)),
        _both(_best(cheap, sign).metric, _best(cheap, sign).test_metrics.get(metric)) if cheap else "none",
        *counts,
    ]


def _best(records: Sequence[Record], sign: int) -> Record:
    return min(records, key=lambda record: sign * (record.metric or 0.0))


def _both(validation: float | None, test: float | None) -> str:
    return f"{validation:.4f}" + ("" if test is None else f" / {test:.4f}")
