"""Tracking in a thread, so that no trial waits for a server or database that does not answer."""

from __future__ import annotations

import logging
import queue
import shlex
import threading
from collections.abc import Callable, Sequence
from typing import Any

from search.config import hide_passwords
from search.report.importance import Importance
from search.study.records import Record
from search.tracking import Tracking

logger = logging.getLogger(__name__)

START_S = 20.0  # a new SQLite file of MLflow takes some seconds
TRIAL_S = 2.0
FINISH_S = 30.0


class BackgroundTracking(Tracking):
    """Calls another tracker in a thread of its own and waits for it only so long.

    Normally that is until it is done, so that logging does not disturb the latency measurement of the next trial. If a
    call takes longer, it goes on in the background; trials that end meanwhile are logged after it, without waiting.

    Args:
        tracking: the other tracker.
        start_s: seconds to wait at most for its start, as ``trial_s`` for a trial, ``finish_s`` for the end.
    """

    def __init__(
        self, tracking: Tracking, *, start_s: float = START_S, trial_s: float = TRIAL_S, finish_s: float = FINISH_S
    ) -> None:
        self._tracking = tracking
        self._start_s, self._trial_s, self._finish_s = start_s, trial_s, finish_s
        self._actions: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._last = threading.Event()  # set when the last action is done
        self._last.set()
        self._lock = threading.Lock()
        self._numbers: set[int] = set()  # trials that are still to be logged
        self._records: Sequence[Record] = ()
        # A daemon: a call that hangs does not keep the process from ending.
        threading.Thread(target=self._run, name="tracking", daemon=True).start()

    def start(self, study: str, **settings: Any) -> None:
        """See :meth:`Tracking.start`."""
        self._study = study
        self._call(lambda: self._tracking.start(study, **settings), self._start_s)

    def log(self, number: int, records: Sequence[Record]) -> None:
        """See :meth:`Tracking.log`."""
        was_idle = self._last.is_set()
        with self._lock:
            self._numbers.add(number)
            self._records = records
        self._call(self._log, self._trial_s if was_idle else 0.0)

    def finish(self, records: Sequence[Record], reason: str = "", importance: Callable[[], Importance] = dict) -> bool:
        """See :meth:`Tracking.finish`."""
        logged: list[bool] = []
        if not self._call(lambda: logged.append(self._tracking.finish(records, reason, importance)), self._finish_s):
            logger.warning(
                "MLflow has not answered for %.0f s. The next run of the study logs what is missing, or "
                "python -m search.sync %s",
                self._finish_s,
                shlex.quote(self._study),
            )
        return logged == [True]

    def ui_command(self) -> str:
        """See :meth:`Tracking.ui_command`."""
        return self._tracking.ui_command()

    def url(self) -> str:
        """See :meth:`Tracking.url`; empty while a call hangs."""
        return self._tracking.url() if self._last.is_set() else ""

    def _call(self, action: Callable[[], None], wait_s: float) -> bool:
        """Queue ``action``; whether it was done within ``wait_s`` seconds."""
        self._last = done = threading.Event()
        self._actions.put((action, done))
        return done.wait(wait_s)

    def _log(self) -> None:
        """Log the trials that are still to be logged: later ones with the first, and then there are none left."""
        with self._lock:
            numbers, self._numbers = self._numbers, set()
            records = self._records
        for number in sorted(numbers):
            self._tracking.log(number, records)

    def _run(self) -> None:
        while True:
            action, done = self._actions.get()
            try:
                action()
            except Exception as error:
                reason = hide_passwords(f"{type(error).__name__}: {error}")
                logger.warning("Tracking failed; trials continue. %s", reason)
            done.set()
