"""Optuna's storages with calls that are retried while the database is unavailable.

A retried transaction may have been committed, as a connection can be lost between the commit and its answer. All but
two kinds write the same again. A trial that has ended is compared with what was to be written. A new trial may be
created twice: then a queued one has the architecture of an earlier trial or replaces the same trial as it, and does not
count, and one that no worker runs is requeued by :func:`search.study.requeue.fail_stale`.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy import exc

from search.study.errors import first_line, is_transient
from search.study.interrupts import signals_held
from search.study.paged import PagedStorage
from search.study.processes import ProcessState, state_of_process

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

SILENT_S = 2.0  # of waiting, before it is reported
HANGING = 10  # grace periods
MIN_DELAY_S, MAX_DELAY_S = 0.1, 2.0  # between two attempts


class StorageUnavailableError(RuntimeError):
    """The database was unavailable for longer than a run waits for it."""


class Retrying(BaseStorage):
    """Retries each call of a storage for up to ``wait_s`` seconds; after that every call fails at once.

    A base class of storages, before the one whose methods are retried: see :func:`retry_methods`. While a trial runs,
    a heartbeat that fails is left out, so that the thread which sends them goes on. Heartbeats are missing after a time
    without the database, so for ``grace_s`` seconds after it no trial counts as stale.

    Raises:
        StorageUnavailableError: by all methods, after ``wait_s`` seconds without success.
    """

    wait_s: float
    grace_s: float
    _failure: StorageUnavailableError | None = None
    _stale_since: Mapping[int, float] = {}  # by the monotonic clock: when a trial was first seen to be stale
    _available_again_at: float | None = None  # by the monotonic clock

    @abc.abstractmethod
    def is_transient(self, error: Exception) -> bool:
        """Whether a call that raised ``error`` may succeed later."""

    def reconnect(self) -> None:
        """Prepare the next attempt."""

    def retry(self, action: Callable[[], Result], resolve: Callable[[], Result] | None = None) -> Result:
        """The result of ``action``, called until the database is available.

        Args:
            action: one transaction.
            resolve: called instead of ``action`` if an attempt has failed and Optuna then refuses to change a trial as
                it has ended.
        """
        if self._failure is not None:
            raise self._failure
        start, delay_s, cause, reported = time.monotonic(), MIN_DELAY_S, "", False
        while True:
            try:
                with signals_held():
                    result = action()
            except UpdateFinishedTrialError:
                if not cause or resolve is None:
                    raise
                result = resolve()
            except Exception as error:
                if not self.is_transient(error):
                    raise
                cause = cause or first_line(error)  # later ones may only tell of the lost connection
                self.reconnect()
                waited_s = time.monotonic() - start
                if waited_s >= self.wait_s:
                    self._failure = StorageUnavailableError(
                        f"the database has been unavailable for {waited_s:.0f} s (storage.wait_s={self.wait_s:g}): "
                        f"{cause}"
                    )
                    raise self._failure from None
                if waited_s >= SILENT_S and not reported:
                    logger.warning("The database is unavailable, waiting for up to %.0f s: %s", self.wait_s, cause)
                    reported = True
                time.sleep(min(delay_s, max(self.wait_s - waited_s, 0.0)))
                delay_s = min(2 * delay_s, MAX_DELAY_S)
                continue
            if cause:
                self._available_again_at = time.monotonic()
            if reported:
                logger.warning("The database is available again after %.0f s.", time.monotonic() - start)
            return result

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See Optuna; a trial that an earlier attempt has ended this way counts as changed."""
        change = super().set_trial_state_values  # type: ignore[safe-super] # of the class after this one

        def resolve() -> bool:
            trial = self.get_trial(trial_id)
            if (trial.state, trial.values) != (state, None if values is None else list(values)):
                raise UpdateFinishedTrialError(f"Trial#{trial.number} has ended otherwise.")
            return True

        return self.retry(lambda: change(trial_id, state, values), resolve)

    def without_running(self, stale: Iterable[int]) -> list[int]:
        """Of the stale trials, by id, those that no process of this machine runs.

        On a busy machine, threads that hold Python's lock may delay heartbeats for longer than ``grace_s``. A process
        that has sent none for ``HANGING`` times that hangs.
        """
        now = time.monotonic()
        self._stale_since = {trial_id: self._stale_since.get(trial_id, now) for trial_id in stale}
        return [
            trial_id
            for trial_id, since in self._stale_since.items()
            if now - since > HANGING * self.grace_s or state_of_process(self.get_trial(trial_id)) != ProcessState.RUNS
        ]

    def is_recovering(self) -> bool:
        """Whether heartbeats of living workers may still be missing, as the database was unavailable."""
        again_at = self._available_again_at
        return again_at is not None and time.monotonic() < again_at + self.grace_s


COMMON_CALLS = (  # of every storage, that open a transaction or ask a server; the change of a state is in Retrying
    "create_new_study",
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial",
)


def retry_methods(cls: type[Retrying], base: type[BaseStorage], names: Iterable[str]) -> None:
    """Let the methods of ``cls`` with these names be those of ``base``, retried."""

    def retried(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Retrying, *args: Any, **kwargs: Any) -> Any:
            return self.retry(lambda: method(self, *args, **kwargs))

        return call

    for name in names:
        setattr(cls, name, retried(getattr(base, name)))


class RetryingStorage(Retrying, PagedStorage):
    """A database whose transactions are retried.

    Args:
        url: see :class:`optuna.storages.RDBStorage`, as for ``settings``.
        wait_s: see :class:`Retrying`.
    """

    def __init__(self, url: str, *, wait_s: float, grace_period: int, **settings: Any) -> None:
        self.wait_s, self.grace_s = wait_s, grace_period
        super().__init__(url, grace_period=grace_period, **settings)

    def is_transient(self, error: Exception) -> bool:
        """See :class:`Retrying`."""
        return is_transient(error)

    def reconnect(self) -> None:
        """Close the session of this thread, whose transaction is invalid once its connection is lost."""
        with contextlib.suppress(exc.SQLAlchemyError):
            self.remove_session()

    def record_heartbeat(self, trial_id: int) -> None:
        """See Optuna; a failed one is left out."""
        try:
            super().record_heartbeat(trial_id)
        except (StorageInternalError, exc.SQLAlchemyError) as error:
            logger.debug("A heartbeat failed: %s", error)
            self.reconnect()

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        stale = super()._get_stale_trial_ids
        found = self.retry(lambda: stale(study_id))
        return [] if self.is_recovering() else self.without_running(found)


RETRIED = (  # those of RDBStorage; with an underscore: called by Optuna's cache
    *COMMON_CALLS,
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "_create_new_trial",
    "_set_trial_param",
    "get_trial_param",
    "_get_trials",
    "_get_best_trial_id",
)
retry_methods(RetryingStorage, PagedStorage, RETRIED)


def is_recovering(study: optuna.Study) -> bool:
    """Whether heartbeats of living workers of the study may be missing; see :class:`Retrying`."""
    storage = getattr(study._storage, "_backend", study._storage)
    return isinstance(storage, Retrying) and storage.is_recovering()


def unavailable(error: BaseException | None) -> StorageUnavailableError | None:
    """The error of this kind that ``error`` is or follows from.

    Optuna raises others while it handles it, among them an UnboundLocalError of its own.
    """
    while error is not None:
        if isinstance(error, StorageUnavailableError):
            return error
        error = error.__cause__ or error.__context__
    return None
