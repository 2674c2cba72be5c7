"""A connection to MLflow that is quiet, quick to give up, and safe to open from several workers at once."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {  # as MLflow comes, a dead server holds up one call for four minutes; users may set all of these
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def connect(uri: str) -> MlflowClient:
    """A client of the server or database at ``uri``; a SQLite file is made if there is none."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of every retry; we warn once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between MLflow and the libraries it uses
        from mlflow import MlflowClient

        if uri.startswith("sqlite:///"):
            make_database(Path(uri.removeprefix("sqlite:///")), lambda new: MlflowClient(f"sqlite:///{new}"))
        return MlflowClient(tracking_uri=uri)


def make_database(file: Path, fill: Callable[[Path], object]) -> None:
    """Make a SQLite file unless it is there, ready at once for everybody.

    Two processes that let MLflow fill the same new file break it for good, and so does one that is killed meanwhile.
    """
    if file.exists():
        return
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mlflow-", ignore_cleanup_errors=True) as folder:
        fill(Path(folder) / "filled.db")
        ready = shutil.copy(Path(folder) / "filled.db", Path(folder) / "ready.db")  # nobody has this one open
        with closing(sqlite3.connect(ready)) as database:
            # A trial then costs 100 ms less on a busy disk, and who reads holds nobody up who writes.
            database.execute("PRAGMA journal_mode=WAL")
        with suppress(FileExistsError):  # another worker was faster
            file.hardlink_to(ready)
