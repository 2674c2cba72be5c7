"""MLflow as a window on a study: a parent run for the study, a nested run a trial, the front as table and plot.

A trial is written once, when it has ended, by the worker that ran it: four calls and no read, about 40 ms on SQLite.
What a killed worker or an outage left out is added by the next ``finish``, of any worker.
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

from search.report import plots as pictures
from search.study.records import Objectives, Record, State, front
from search.tracking import Tracking, saved_view, summaries
from search.tracking.runs import Runs
from search.tracking.summaries import without_password

logger = logging.getLogger(__name__)

DRAW_EVERY_S = 600.0  # the plot weighs 4.8 MB and takes a second


class MlflowTracking(Tracking):
    """Tracking by MLflow.

    Args:
        uri: a tracking server or a database; null is what MLFLOW_TRACKING_URI says, else ``mlflow.db`` in the current
            folder, which a bare ``mlflow ui`` there shows.
        experiment: the MLflow experiment that holds the studies.
    """

    def __init__(self, *, uri: str | None = None, experiment: str = "paretoformer") -> None:
        self.uri, self.artifacts = _located(uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
        self.experiment = experiment
        self._own: set[int] = set()
        self._agreed = False  # with the other workers, on what is there; undone by a failure
        self._draw_at = 0.0
        self._away_until = 0.0
        self._warned = False

    def start(self, study: str, *, identity: str, objectives: Objectives, config: str) -> None:
        """See :meth:`Tracking.start`."""
        self.objectives, self.config = objectives, without_password(config)
        self._runs = Runs(
            self.uri,
            experiment=self.experiment,
            artifacts=self.artifacts,
            study=study,
            # Without the password, as two workers may write the same storage with and without it.
            study_id=hashlib.sha256(without_password(identity).encode()).hexdigest()[:16],
        )
        self._attempt(lambda: self._runs.connect(self.objectives))

    def log(self, number: int, records: Sequence[Record]) -> None:
        """See :meth:`Tracking.log`."""
        self._own.add(number)
        self._attempt(lambda: self._log(records))

    def finish(self, records: Sequence[Record]) -> None:
        """See :meth:`Tracking.finish`."""
        self._away_until = 0.0
        if not self._attempt(lambda: self._finish(records)):
            logger.warning("MLflow lacks a part of this study; the next run of the same study will add it.")

    def command(self) -> str:
        """See :meth:`Tracking.command`; a password must be put back by hand."""
        if self.uri.startswith("http"):
            return ""
        if self.uri == _located("sqlite:///mlflow.db")[0]:
            return "mlflow ui"
        return f"mlflow ui --backend-store-uri {shlex.quote(without_password(self.uri))}"

    def page(self) -> str:
        """See :meth:`Tracking.page`."""
        server = without_password(self.uri).rstrip("/") if self.uri.startswith("http") else "http://127.0.0.1:5000"
        runs = self._runs
        return f"{server}/{saved_view.address(runs.experiment_id, runs.study_id)}" if runs.experiment_id else ""

    def _attempt(self, action: Callable[[], object]) -> bool:
        """Do what may fail. A failure is followed by ten times its duration without another attempt."""
        began = time.monotonic()
        if began < self._away_until:
            return False
        try:
            action()
        except Exception as error:
            self._agreed = False
            self._away_until = _tenfold(began)
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            reason = without_password(f"{type(error).__name__}: {error}").splitlines()[0][:300]
            where = without_password(self.uri)
            logger.warning("MLflow at %s fails; trials go on, and what it misses follows later. %s", where, reason)
        self._warned = True

    def _log(self, records: Sequence[Record]) -> None:
        if not self._agreed:
            # Once more: workers that started together have all made their parents by the time a first trial ends.
            self._runs.connect(self.objectives)
            self._agreed = True
        self._mirror(records, self._own)
        if time.monotonic() > self._draw_at:
            self._draw(records)

    def _finish(self, records: Sequence[Record]) -> None:
        self._runs.connect(self.objectives)
        self._runs.tidy()
        self._mirror(records, {record.number for record in records})
        for record in records:
            if len(record.timings) > 1:  # measured again since it was written
                self._runs.correct(record.number, {"latency_ms": record.costs["latency_ms"]})
        self._draw(records)
        self._runs.close()

    def _mirror(self, records: Sequence[Record], numbers: Collection[int]) -> None:
        """Write the trials among ``numbers`` that ended and are missing, then the front and the parent."""
        members = {record.number for record in front(records, self.objectives)}
        for record in records:
            if record.number in numbers and record.state != State.RUNNING and not self._runs.has(record.number):
                summary = summaries.of_trial(record, self.objectives)
                on_front = record.number in members
                self._runs.write(record.number, summary, seconds=summaries.seconds(record), front=on_front)
        self._runs.mark(members)
        self._runs.describe(summaries.of_study(records, self.objectives, self._runs.links()))

    def _draw(self, records: Sequence[Record]) -> None:
        """Write what is heavy, now and then. Artifacts may live elsewhere than runs: their failure is their own."""
        began = time.monotonic()
        rows = pictures.table(front(records, self.objectives), self.objectives)
        table = {"columns": list(rows[0]) if rows else [], "data": [list(row.values()) for row in rows]}
        # Named by its content: workers share one file, and a later run with other settings adds its own.
        config = f"config/{hashlib.sha256(self.config.encode()).hexdigest()[:8]}.yaml"
        try:
            self._runs.keep_view(self.objectives, records)
            self._runs.keep(config, self.config)
            self._runs.keep("front.json", json.dumps(table))
            self._runs.keep("front.html", pictures.html(records, self.objectives, title=self._runs.study))
        except Exception as error:
            self._warn(error)
        self._draw_at = max(began + DRAW_EVERY_S, _tenfold(began))


def _tenfold(began: float) -> float:
    """When ten times as long will have passed as has passed since ``began``."""
    now = time.monotonic()
    return now + 10 * (now - began)


def _located(uri: str) -> tuple[str, str | None]:
    """The address, of a SQLite file made absolute, and the folder for artifacts where that is for us to choose."""
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///")).resolve()
        return f"sqlite:///{file}", str(file.parent / "mlruns")
    # MLflow's own default is a relative folder, which another worker would look for elsewhere.
    return uri, str(Path.cwd() / "mlruns") if uri.startswith(("postgresql", "mysql", "mssql")) else None
