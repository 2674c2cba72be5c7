"""Open storages and studies; a study's storage holds all of its state and is shared by its workers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage

from search.config import hide_passwords
from search.study.database import connect, open_database, parse
from search.study.paged import PagedStorage
from search.study.records import Direction
from search.study.retrying import Retrying, RetryingStorage
from search.study.set_once import SET_ONCE
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from search.study.proxy import ProxyStorage

GRPC = "grpc:"
GRACE_S = 60


def open_storage(*, url: str, heartbeat_s: int = 10, grace_s: int = GRACE_S, wait_s: float = 600) -> Retrying:
    """Open or create the storage at ``url``.

    Args:
        url: ``sqlite:///file.db``, ``postgresql+psycopg://user@host/database`` or another that SQLAlchemy knows; or
            ``grpc://host:port``, where :mod:`search.proxy` runs.
        heartbeat_s: seconds between the heartbeats of a running trial.
        grace_s: seconds without a heartbeat after which another worker requeues a running trial.
        wait_s: seconds for which a run waits for a database that has become unavailable.

    Raises:
        ConfigError: the URL is invalid or the database can't be opened; the message hides the password.
    """
    if not 0 < heartbeat_s < grace_s:
        raise ConfigError(f"heartbeat_s={heartbeat_s}, grace_s={grace_s}; write 0 < heartbeat_s < grace_s")
    if not wait_s >= 0:
        raise ConfigError(f"wait_s={wait_s!r}: it must be a number of seconds from 0")
    if url.startswith(GRPC):
        return _proxy_storage(url)(url, heartbeat_s=heartbeat_s, grace_s=grace_s, wait_s=wait_s)
    if parse(url).get_backend_name() == "sqlite" and parse(url).database in (None, "", ":memory:"):
        raise ConfigError(f"url: {url} names no file; write sqlite:///FILE.db")
    settings = {"heartbeat_interval": heartbeat_s, "grace_period": grace_s}
    return open_database(url, lambda url, **more: RetryingStorage(url, wait_s=wait_s, **settings, **more))


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage that :func:`open_storage` has opened."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()
    elif isinstance(storage, GrpcStorageProxy):
        storage.close()


def _proxy_storage(url: str) -> type[ProxyStorage]:
    try:
        from search.study.proxy import ProxyStorage
    except ModuleNotFoundError as error:
        hint = "pip install 'paretoformer[grpc]'"
        raise ConfigError(f"url: {url} needs the package {error.name!r}: {hint}") from None
    return ProxyStorage


@contextmanager
def open_read_only(url: str) -> Iterator[BaseStorage]:
    """The storage at ``url``, as for :func:`open_storage`, to read from. No file, table or study is created.

    Raises:
        ConfigError: there is none, or it can't be opened; the message hides the password.
    """
    if url.startswith(GRPC):
        with closing(_proxy_storage(url)(url, heartbeat_s=1, grace_s=2, wait_s=0)) as proxy:
            yield proxy
        return
    parsed = parse(url)
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if file and not Path(file).exists():
        raise ConfigError(f"{hide_passwords(url)}: no such file")
    storage = connect(url, PagedStorage, attempts=1, skip_table_creation=True)
    try:
        yield storage
    finally:
        close_storage(storage)


def open_study(
    storage: BaseStorage,
    name: str,
    *,
    directions: Mapping[str, Direction],
    sampler: BaseSampler,
    identity: Mapping[str, Any],
) -> optuna.Study:
    """Open a study, or create it.

    Args:
        storage: of the study.
        name: of the study.
        directions: of the objectives, by name.
        sampler: of parameters that are not queued.
        identity: the settings that all workers of a study must share, as nested plain values.

    Raises:
        ConfigError: the study was created with other settings; the message lists the differences.
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
        known = study.user_attrs["identity"]  # read again: another worker may have set it first
    differing = list(_differences(json.loads(known), json.loads(json.dumps(identity))))
    if differing:
        lines = "\n".join(f"  {line}" for line in differing)
        raise ConfigError(
            f"the study {name!r} was created with other settings:\n{lines}\n"
            f"use the same settings to continue it, or name another: study=NAME"
        )
    return study


def load_study(storage: BaseStorage, name: str) -> optuna.Study:
    """Load an existing study.

    Raises:
        ConfigError: there is none of that name; the message lists the existing ones.
    """
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise ConfigError(f"there is no study {name!r} in {_where(storage)}; there are {', '.join(names) or 'none'}")
    return optuna.load_study(study_name=name, storage=storage)


def _where(storage: BaseStorage) -> str:
    if isinstance(storage, RDBStorage):
        return storage.engine.url.render_as_string(hide_password=True)
    return "the storage"


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
    """An attribute, one of ``SET_ONCE``, that all workers of a study share; set to ``compute()`` if it is missing."""
    assert name in SET_ONCE, name
    if name not in study.user_attrs:
        study.set_user_attr(name, compute())  # unless another worker was faster
    return study.user_attrs[name]


def overwrite_values(study: optuna.Study, objective: int, values: Mapping[int, float]) -> None:
    """Overwrite one objective's value of trials that have ended, by trial id, where the storage is a database.

    Optuna has no method for this; without it, its samplers and dashboard would use latencies that the front no longer
    does. Processes that have the study open keep their cached values.
    """
    backend = getattr(study._storage, "_backend", study._storage)
    if isinstance(backend, RetryingStorage) and values:
        table = sqlalchemy.table("trial_values", *map(sqlalchemy.column, ("trial_id", "objective", "value")))
        chosen = (table.c.trial_id == sqlalchemy.bindparam("id")) & (table.c.objective == objective)
        update = sqlalchemy.update(table).where(chosen).values(value=sqlalchemy.bindparam("new"))
        rows = [{"id": trial_id, "new": value} for trial_id, value in values.items()]

        def execute() -> None:
            with backend.engine.begin() as connection:
                connection.execute(update, rows)

        backend.retry(execute)
