"""An MLflow client with few log messages and short timeouts, safe to create from several workers at once."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

from search.tracking.summaries import RunData

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"  # the tag of a nested run
STUDY = "paretoformer.study"  # the tag of a run of a study, and of an exported member, with the name of the study
MODELS = "paretoformer.models"  # the tag of a parent run with the registered models of its trials: links by text, JSON

_SETTINGS = {  # MLflow's defaults block a call for four minutes if the server is down; users may override these
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def connect(uri: str) -> MlflowClient:
    """A client of the server or database at ``uri``; a missing SQLite file is created."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)  # a warning per retry
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one warning per retry otherwise; we warn once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between MLflow and the libraries it uses
        from mlflow import MlflowClient

        if uri.startswith("sqlite:///"):
            create_database(Path(uri.removeprefix("sqlite:///")), lambda new: MlflowClient(f"sqlite:///{new}"))
        return MlflowClient(tracking_uri=uri)


def experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """The id of an experiment; a missing one is created, with artifacts at ``artifacts`` or the server's default."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(name, artifact_location=artifacts)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id  # created by another worker


def search_runs(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    """All runs of an experiment that fulfil a condition."""
    page = client.search_runs([experiment], condition)
    runs = list(page)
    while page.token:
        page = client.search_runs([experiment], condition, page_token=page.token)
        runs += page
    return runs


def study_runs(client: MlflowClient, experiment: str) -> list[Run]:
    """The parent runs of an experiment's studies, the latest first."""
    found = search_runs(client, experiment, f"tags.`{STUDY}` LIKE '%'")
    return [run for run in found if PARENT not in run.data.tags]


def log_batch(client: MlflowClient, run_id: str, data: RunData, *, start_ms: int = 0) -> None:
    """Log the data of a run that started at ``start_ms``, by several calls if MLflow's limits require it."""
    from mlflow.entities import Metric, Param, RunTag

    metrics = [
        Metric(name, value, start_ms + round(1000 * seconds), step) for name, value, step, seconds in data.values
    ]
    params = [Param(name, value) for name, value in data.params.items()]
    tags = [RunTag(name, value) for name, value in data.tags.items()]
    while metrics or params or tags:
        client.log_batch(run_id, metrics[:800], params[:100], tags[:100])
        metrics, params, tags = metrics[800:], params[100:], tags[100:]


def create_database(file: Path, fill: Callable[[Path], object]) -> None:
    """Create a SQLite file atomically, unless it exists; ``fill`` creates the tables.

    Two processes in which MLflow creates the tables of one file corrupt it, and so does one that is killed meanwhile.
    Its folder is then deleted by the next one on the same host.
    """
    for left in file.parent.glob(".mlflow-*"):
        if not _is_running(left.name.split("-")[1]):
            shutil.rmtree(left, ignore_errors=True)
    if file.exists():
        return
    prefix = f".mlflow-{os.getpid()}-"
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        with _unsynchronized(Path(folder)):
            fill(Path(folder) / "filled.db")
        ready = shutil.copy(Path(folder) / "filled.db", Path(folder) / "ready.db")  # no connection to the copy is open
        with closing(sqlite3.connect(ready)) as database:
            # Logging a trial is 100 ms faster on a busy disk, and readers do not block writers.
            database.execute("PRAGMA journal_mode=WAL")
        with suppress(FileExistsError):  # created by another worker
            file.hardlink_to(ready)


@contextmanager
def _unsynchronized(folder: Path) -> Iterator[None]:
    """Do not wait for the disk after each transaction on SQLite files in ``folder``.

    MLflow creates its tables by dozens of migrations, which takes seconds of waiting. The files are worthless until
    they are complete.
    """

    def set_pragma(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            files = [row[2] for row in connection.execute("PRAGMA database_list")]
            if any(file and Path(file).is_relative_to(folder.resolve()) for file in files):
                connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", set_pragma)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", set_pragma)


def _is_running(process: str) -> bool:
    """Whether a process runs on this host, by its id as text; false for other text."""
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
