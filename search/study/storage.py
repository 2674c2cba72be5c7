"""The shared study: opened or joined, and refused where the spaces differ. Its storage holds all the state there is."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage

from search.study.records import Direction
from search.study.requeue import requeue_stale
from spaces.dimensions import ConfigError


def open_storage(*, url: str, heartbeat_s: int = 10, grace_s: int = 60) -> RDBStorage:
    """Open or create the storage at an SQLAlchemy ``url``.

    Args:
        url: ``sqlite:///file.db``, ``postgresql+psycopg://user@host/database`` or another that SQLAlchemy knows.
        heartbeat_s: seconds between a running trial's signs of life.
        grace_s: seconds of silence after which a running trial is taken over by another worker.

    Raises:
        ConfigError: the database can't be reached or the URL can't be read; its password is never shown.
    """
    if not 0 < heartbeat_s < grace_s:
        raise ConfigError(f"heartbeat_s={heartbeat_s}, grace_s={grace_s}; write 0 < heartbeat_s < grace_s")
    storage = _connect(
        url,
        attempts=5,  # two workers that create the tables at the same moment disturb each other once
        heartbeat_interval=heartbeat_s,
        grace_period=grace_s,
        heartbeat_stale_trial_callback=requeue_stale,
    )
    if storage.engine.name == "sqlite":
        sqlalchemy.event.listen(storage.engine, "connect", _many_writers)
        storage.engine.dispose()  # the connections made so far know nothing of it
    return storage


@contextmanager
def reading(url: str) -> Iterator[RDBStorage]:
    """The storage at an SQLAlchemy ``url``, to read from. Nothing is made: no file, no table, no study.

    Raises:
        ConfigError: there is none, or it can't be read; its password is never shown.
    """
    parsed = _parse(url)
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if file and not Path(file).exists():
        raise ConfigError(f"{shown(url)}: there is no such file")
    storage = _connect(url, attempts=1, skip_table_creation=True)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def shown(url: str) -> str:
    """A database URL without its password."""
    return _parse(url).render_as_string(hide_password=True)


def _parse(url: str) -> sqlalchemy.URL:
    try:
        return sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ConfigError("url: not a database URL; write sqlite:///FILE.db or postgresql+psycopg://...") from None


def _connect(url: str, *, attempts: int, **settings: Any) -> RDBStorage:
    """Optuna's storage with ``settings`` of its constructor."""
    sqlite = _parse(url).get_backend_name() == "sqlite"
    for attempt in range(attempts):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True},
                    **settings,
                )
        except ModuleNotFoundError as error:
            hint = "pip install 'paretoformer[postgres]'"
            raise ConfigError(f"url: {shown(url)} needs the package {error.name!r}: {hint}") from None
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            if attempt == attempts - 1 or isinstance(error, ImportError):
                raise ConfigError(f"url: {shown(url)} can't be opened: {_first_line(error)}") from None
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _many_writers(connection: Any, _: object) -> None:
    """A write-ahead log lets readers go on while one writes: 2 times faster alone, 20 on a busy disk."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _first_line(error: BaseException) -> str:
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__:
        error = error.__cause__  # what Optuna says itself is a guess
    text = str(getattr(error, "orig", None) or error)
    return text.splitlines()[0] if text else type(error).__name__


def open_study(
    storage: RDBStorage,
    name: str,
    *,
    directions: Mapping[str, Direction],
    sampler: BaseSampler,
    identity: Mapping[str, Any],
) -> optuna.Study:
    """Open the study called ``name`` or create it.

    Args:
        storage: that holds it.
        name: the study's.
        directions: of its objectives, by their names.
        sampler: of parameters that are not queued.
        identity: all that makes results comparable, as nested plain values; stored with a new study.

    Raises:
        ConfigError: the study was created with another identity; the message names what differs.
    """
    study = optuna.create_study(
        storage=storage, study_name=name, directions=list(directions.values()), sampler=sampler, load_if_exists=True
    )
    known = study.user_attrs.get("identity")
    if known is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(directions))
        study.set_user_attr("identity", json.dumps(identity))
        known = study.user_attrs["identity"]  # read again: another worker may have been faster
    differing = list(_differences(json.loads(known), json.loads(json.dumps(identity))))
    if differing:
        lines = "\n".join(f"  {line}" for line in differing)
        raise ConfigError(
            f"the study {name!r} was created with other settings:\n{lines}\n"
            f"use the same settings to continue it, or name another: study=NAME"
        )
    return study


def load_study(storage: RDBStorage, name: str) -> optuna.Study:
    """A stored study.

    Raises:
        ConfigError: there is none of that name; the message lists those that there are.
    """
    names = optuna.get_all_study_names(storage)
    if name not in names:
        url = storage.engine.url.render_as_string(hide_password=True)
        raise ConfigError(f"there is no study {name!r} in {url}; there are {', '.join(names) or 'none'}")
    return optuna.load_study(study_name=name, storage=storage)


def _differences(stored: object, given: object, where: str = "") -> Iterable[str]:
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        for name in [*stored, *(name for name in given if name not in stored)]:
            place = f"{where}.{name}" if where else name
            if name not in given:
                yield f"{place}: the study has {json.dumps(stored[name])}, this run has none"
            elif name not in stored:
                yield f"{place}: the study has none, this run has {json.dumps(given[name])}"
            else:
                yield from _differences(stored[name], given[name], place)
    elif stored != given:
        yield f"{where}: the study has {json.dumps(stored)}, this run has {json.dumps(given)}"


def get_or_set_attr(study: optuna.Study, name: str, compute: Callable[[], Any]) -> Any:
    """A value that all workers of a study share: the stored one, or else ``compute()``, stored."""
    if name not in study.user_attrs:
        value = compute()
        if name not in study.user_attrs:
            study.set_user_attr(name, value)
    return study.user_attrs[name]


def overwrite_values(study: optuna.Study, objective: int, values: Mapping[int, float]) -> None:
    """Overwrite one objective's value of trials that have ended, by trial id, where the storage is a database.

    Optuna's interface refuses this; without it, Optuna's samplers and dashboard would show latencies that the front no
    longer uses. Processes that hold the study open keep their cached values.
    """
    backend = getattr(study._storage, "_backend", study._storage)
    if isinstance(backend, RDBStorage) and values:
        table = sqlalchemy.Table("trial_values", sqlalchemy.MetaData(), autoload_with=backend.engine)
        chosen = (table.c.trial_id == sqlalchemy.bindparam("id")) & (table.c.objective == objective)
        update = sqlalchemy.update(table).where(chosen).values(value=sqlalchemy.bindparam("new"))
        with backend.engine.begin() as connection:
            connection.execute(update, [{"id": trial_id, "new": value} for trial_id, value in values.items()])
