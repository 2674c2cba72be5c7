"""The shared study: opened or joined, and refused where the spaces differ. Its storage holds all the state there is."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage

from search.records import Direction
from search.trials import put_back_after_death
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
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ConfigError("url: not a database URL; write sqlite:///FILE.db or postgresql+psycopg://...") from None
    sqlite = parsed.get_backend_name() == "sqlite"
    shown = parsed.render_as_string(hide_password=True)
    for attempt in range(5):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = RDBStorage(
                    url,
                    engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True},
                    heartbeat_interval=heartbeat_s,
                    grace_period=grace_s,
                    heartbeat_stale_trial_callback=put_back_after_death,
                )
        except ModuleNotFoundError as error:
            hint = "pip install 'paretoformer[postgres]'"
            raise ConfigError(f"url: {shown} needs the package {error.name!r}: {hint}") from None
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            # Two workers that create the tables at the same moment disturb each other once.
            if attempt == 4 or isinstance(error, ImportError):
                raise ConfigError(f"url: {shown} can't be opened: {_first_line(error)}") from None
            time.sleep(0.2 * 2**attempt)
        else:
            if sqlite:
                sqlalchemy.event.listen(storage.engine, "connect", _many_writers)
                storage.engine.dispose()  # the connections made so far know nothing of it
            return storage
    raise AssertionError("unreachable")


def _many_writers(connection: Any, _: object) -> None:
    """A write-ahead log lets readers go on while one writes: 2 times faster alone, 20 on a busy disk."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error)
    return text.splitlines()[0] if text else type(error).__name__


def join(
    storage: RDBStorage,
    name: str,
    *,
    directions: Sequence[Direction],
    sampler: BaseSampler,
    identity: Mapping[str, Any],
) -> optuna.Study:
    """Open the study called ``name`` or create it.

    Args:
        identity: all that makes results comparable, as nested plain values; stored with a new study.

    Raises:
        ConfigError: the study was made with another identity; the message names what differs.
    """
    study = optuna.create_study(
        storage=storage, study_name=name, directions=list(directions), sampler=sampler, load_if_exists=True
    )
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", json.dumps(identity))
        known = study.user_attrs["identity"]  # read again: another worker may have been faster
    differing = list(_differences(json.loads(known), json.loads(json.dumps(identity))))
    if differing:
        lines = "\n".join(f"  {line}" for line in differing)
        raise ConfigError(
            f"the study {name!r} was made with other settings:\n{lines}\n"
            f"take them back to continue it, or name another: study=NAME"
        )
    return study


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


def agree(study: optuna.Study, name: str, compute: Callable[[], Any]) -> Any:
    """A value that all workers of a study share: the stored one, or else ``compute()``, stored."""
    if name not in study.user_attrs:
        value = compute()
        if name not in study.user_attrs:
            study.set_user_attr(name, value)
    return study.user_attrs[name]
