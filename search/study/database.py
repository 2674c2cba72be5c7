"""Open databases as Optuna's storages, with settings for connections that are dropped and for locked files."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.storages import RDBStorage

from search.config import hide_passwords
from search.study.errors import first_line
from search.study.retrying import MAX_DELAY_S
from spaces.dimensions import ConfigError

Database = TypeVar("Database", bound=RDBStorage)
MORE_ATTEMPTS = 30  # to open a database, after errors that will pass
PASSING = ("already exists", "the database system is")  # ... starting up, shutting down, in recovery mode
LIBPQ = {  # seconds; a connection that the network has dropped would otherwise block for a quarter of an hour
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}


def open_database(url: str, create: Callable[..., Database], *, connections: int = 1) -> Database:
    """Open or create the database at an SQLAlchemy ``url`` as the storage that ``create`` constructs.

    ``connections`` to a server are kept open. A worker rarely needs a second one, and servers accept 100 by default.

    Raises:
        ConfigError: the URL is invalid or the database can't be opened; the message hides the password.
    """
    storage = connect(url, create, attempts=5, connections=connections)
    if storage.engine.name == "sqlite":
        sqlalchemy.event.listen(storage.engine, "connect", _enable_wal)
        storage.engine.dispose()  # connections opened so far don't have it
    return storage


def parse(url: str) -> sqlalchemy.URL:
    """The parts of a database's URL.

    Raises:
        ConfigError: it is none.
    """
    try:
        return sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        accepted = "sqlite:///FILE.db, postgresql+psycopg://... or grpc://HOST:PORT"
        raise ConfigError(f"url: not a database URL; write {accepted}") from None


def connect(
    url: str, create: Callable[..., Database], *, attempts: int, connections: int = 1, **settings: Any
) -> Database:
    """The storage that ``create`` constructs with ``settings``; retried with growing delays.

    For a minute more while another worker creates the tables, or while a server starts or stops.
    """
    parsed, attempt = parse(url), 0
    while True:
        attempt += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return create(url, engine_kwargs=_engine_settings(parsed, connections), **settings)
        except ModuleNotFoundError as error:
            hint = "pip install 'paretoformer[postgres]'"
            raise ConfigError(f"url: {hide_passwords(url)} needs the package {error.name!r}: {hint}") from None
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            passes = isinstance(error, sqlalchemy.exc.IntegrityError) or any(text in str(error) for text in PASSING)
            if attempt >= attempts + MORE_ATTEMPTS * passes or isinstance(error, ImportError):
                raise ConfigError(f"url: {hide_passwords(url)} can't be opened: {first_line(error)}") from None
            time.sleep(min(0.1 * 2**attempt, MAX_DELAY_S))


def _engine_settings(url: sqlalchemy.URL, connections: int) -> dict[str, Any]:
    """Connections that were dropped while they were idle are replaced, and dead ones noticed within a minute."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 20}}
    settings: dict[str, Any] = {"pool_pre_ping": True, "pool_size": connections}
    driver = url.get_dialect().driver
    if driver == "psycopg":
        from search.study.postgresql import connector  # needs the package

        return {**settings, "creator": connector(url, LIBPQ)}
    return {**settings, "connect_args": LIBPQ if driver == "psycopg2" else {}}


def _enable_wal(connection: Any, _: object) -> None:
    """With a write-ahead log readers do not wait for a writer: 2 times faster alone, 20 on a busy disk."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
