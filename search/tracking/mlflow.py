"""Tracking with MLflow: a parent run per study, nested runs of trials and baselines, and the front as table and plot.

A trial is logged once, by the worker that ran it when it has ended: four calls and no read, about 40 ms on SQLite.
Trials that were not logged because a worker was killed or the server failed are logged by the next ``finish`` of any
worker.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from search.config import hide_passwords
from search.report import rows
from search.report.answers import Description
from search.report.importance import Importance
from search.study.records import Objectives, Record, State, front
from search.tracking import Tracking, saved_view, summaries, system_metrics
from search.tracking.note import study_data
from search.tracking.runs import StudyRuns
from spaces.baselines import BaselineResult

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)

ARTIFACTS_EVERY_S = 600.0  # drawing the plot takes a second


class MlflowTracking(Tracking):
    """Logs to an MLflow server or database.

    Args:
        uri: of the server or database; None for that of MLFLOW_TRACKING_URI or else ``mlflow.db`` in the current
            folder, which ``mlflow ui`` shows by default.
        experiment: name of the MLflow experiment of the studies.
    """

    def __init__(self, *, uri: str | None = None, experiment: str = "paretoformer") -> None:
        self.uri, self.artifacts = resolve_uri(tracking_uri(uri))
        self.experiment = experiment
        self._own: set[int] = set()
        self._connected = False  # since the other workers created their parent runs; false after a failure
        self._next_artifacts_at = 0.0
        self._retry_at = 0.0
        self._warned = False
        self._monitored = False  # whether it was tried
        self._monitor: SystemMetricsMonitor | None = None  # logs the load of the machine

    def start(
        self,
        study: str,
        *,
        identity: str,
        objectives: Objectives,
        config: str,
        baselines: Sequence[BaselineResult] = (),
        description: Description | None = None,
    ) -> None:
        """See :meth:`Tracking.start`."""
        self.objectives, self.config, self.baselines = objectives, hide_passwords(config), baselines
        self.description = description
        self._runs = StudyRuns(
            self.uri,
            experiment=self.experiment,
            artifacts=self.artifacts,
            study=study,
            # Without the password: the URL of one worker may have it and that of another not.
            study_id=hashlib.sha256(hide_passwords(identity).encode()).hexdigest()[:16],
        )
        self._attempt(self._connect)

    def log(self, number: int, records: Sequence[Record]) -> None:
        """See :meth:`Tracking.log`."""
        self._own.add(number)
        self._attempt(lambda: self._log(records))

    def finish(self, records: Sequence[Record], reason: str = "", importance: Callable[[], Importance] = dict) -> bool:
        """See :meth:`Tracking.finish`."""
        self._retry_at = 0.0
        if self._attempt(lambda: self._finish(records, reason, importance)):
            return True
        hint = f"python -m search.sync {shlex.quote(self._runs.study)}"
        logger.warning("Some trials are missing in MLflow; the next run of the study will log them, or %s", hint)
        return False

    def ui_command(self) -> str:
        """See :meth:`Tracking.ui_command`; a password is hidden and must be inserted."""
        if self.uri.startswith("http"):
            return ""
        if self.uri == resolve_uri("sqlite:///mlflow.db")[0]:
            return "python -m search.ui"
        return f"python -m search.ui --uri {shlex.quote(hide_passwords(self.uri))}"

    def url(self) -> str:
        """See :meth:`Tracking.url`."""
        server = hide_passwords(self.uri).rstrip("/") if self.uri.startswith("http") else "http://127.0.0.1:5000"
        runs = self._runs
        return f"{server}/{saved_view.url_path(runs.experiment_id, runs.study_id)}" if runs.experiment_id else ""

    def _attempt(self, action: Callable[[], object]) -> bool:
        """Call ``action``; after an exception make no attempt for ten times as long as it took. Returns success."""
        began = time.monotonic()
        if began < self._retry_at:
            return False
        try:
            action()
        except Exception as error:
            self._connected = False
            self._retry_at = _retry_time(began)
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            reason = hide_passwords(f"{type(error).__name__}: {error}").splitlines()[0][:300]
            where = hide_passwords(self.uri)
            logger.warning("MLflow at %s failed; trials continue, and missing ones are logged later. %s", where, reason)
        self._warned = True

    def _log(self, records: Sequence[Record]) -> None:
        if not self._connected:
            # Again: workers that started together have created their parent runs before the first trial ends.
            self._connect()
            self._connected = True
        self._log_trials(records, self._own)
        if time.monotonic() > self._next_artifacts_at:
            self._log_artifacts(records)

    def _connect(self) -> None:
        self._runs.connect(self.objectives, self.description)
        if not self._monitored:
            self._monitored, self._monitor = True, system_metrics.monitor(self._runs.parent, self.uri)

    def _finish(self, records: Sequence[Record], reason: str, importance: Callable[[], Importance]) -> None:
        self._connect()
        shares, numbers = importance(), {record.number for record in records}
        self._runs.delete_surplus(numbers)
        self._log_trials(records, numbers, reason, shares)
        self._connect()  # another worker that ends at the same time may have logged the same trials
        self._runs.delete_surplus(numbers)
        others, addresses = {record.number: record for record in records}, self._runs.addresses()
        for record in records:
            if len(record.timings) > 1:  # measured again after it was logged
                new = {"latency_ms": record.costs["latency_ms"], "latency_spread": record.timings[-1].spread}
                self._runs.update_trial(
                    record.number, new, summaries.trial_note(record, self.objectives, others, addresses)
                )
        self._log_artifacts(records, shares)
        if self._monitor is not None:
            self._monitor.finish()  # type: ignore[no-untyped-call]
        self._runs.finish(hide_passwords(reason)[: summaries.TEXT_LIMIT])

    def _log_trials(
        self,
        records: Sequence[Record],
        numbers: Collection[int],
        reason: str = "",
        importance: Importance = MappingProxyType({}),
    ) -> None:
        """Log the baselines and those trials among ``numbers`` that are missing, then the front and the parent run."""
        for baseline in self.baselines:
            self._runs.log_baseline(summaries.baseline_data(baseline, self.objectives))
        members = {record.number for record in front(records, self.objectives)}
        others = {record.number: record for record in records}
        dimensions = None if self.description is None else self.description.dimensions
        for record in records:
            if record.number in numbers and record.state != State.RUNNING and not self._runs.is_logged(record):
                addresses = self._runs.addresses()
                data = summaries.trial_data(record, self.objectives, dimensions, others, addresses)
                on_front = record.number in members
                name = summaries.trial_name(record, dimensions)
                self._runs.log_trial(record, data, name=name, front=on_front)
        self._runs.tag_front(members)
        links = self._runs.links(importance=bool(importance))
        self._runs.log_study(
            study_data(records, self.objectives, links, self.baselines, self.description, importance, reason)
        )

    def _log_artifacts(self, records: Sequence[Record], importance: Importance = MappingProxyType({})) -> None:
        """Log the large artifacts. Their store may fail independently of that of the runs."""
        from search.report import charts, figure, picture  # they import matplotlib

        began = time.monotonic()
        members = rows.table_rows(front(records, self.objectives), self.objectives)
        table = {"columns": rows.columns(members), "data": [list(row.values()) for row in members]}
        # Named by its hash: workers with the same settings share a file, others add their own.
        config = f"config/{hashlib.sha256(self.config.encode()).hexdigest()[:8]}.yaml"
        try:
            page = picture.html(records, self.objectives, title=self._runs.study, baselines=self.baselines)
            dimensions = None if self.description is None else self.description.dimensions
            self._runs.log_view(self.objectives, records, dimensions)
            if self.config:
                self._runs.log_text(config, self.config)
            self._runs.log_text("front.json", json.dumps(table))
            self._runs.log_text("front.html", page)
            if importance:
                drawn = figure.rendered(charts.draw_importance(importance), "svg")
                self._runs.log_text(saved_view.IMPORTANCE, drawn.decode())
        except Exception as error:
            self._warn(error)
        self._next_artifacts_at = max(began + ARTIFACTS_EVERY_S, _retry_time(began))


def _retry_time(began: float) -> float:
    """Ten times as long from now as the time since ``began``."""
    now = time.monotonic()
    return now + 10 * (now - began)


def tracking_uri(uri: str | None) -> str:
    """``uri``, or else that of MLFLOW_TRACKING_URI, or else the database in the current folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def resolve_uri(uri: str) -> tuple[str, str | None]:
    """The URI, absolute for a SQLite file, and the artifact location; None for the server's default."""
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///")).resolve()
        return f"sqlite:///{file}", str(file.parent / "mlruns")
    # MLflow's default is a relative path, which depends on the folder of each worker.
    return uri, str(Path.cwd() / "mlruns") if uri.startswith(("postgresql", "mysql", "mssql")) else None
