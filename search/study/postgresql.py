"""Connections to PostgreSQL by psycopg that fail if the server does not answer; libpq itself waits for ever.

As long as the machine of a server answers, TCP cannot tell that the server hangs, is stopped or waits for its disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg
import sqlalchemy

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

ANSWER_S = 60.0  # without a byte of the answer to a statement; long enough to wait for the locks of many workers
TOLD_S = 10.0  # after which it is reported
IDLE_S = 300  # of a client within a transaction, such as a stopped process: its locks would stop all other workers


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that is closed, with an error, if nothing was received for ``ANSWER_S`` seconds."""

    def wait(self, gen: Generator[Any, Any, Result], *args: Any, **kwargs: Any) -> Result:
        """See psycopg: runs ``gen``, which yields what it waits for and is sent what is ready."""
        return super().wait(self._limited(gen), *args, **kwargs)

    def _limited(self, steps: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
        ready, since, reported = None, time.monotonic(), False
        while True:
            try:
                state = steps.send(ready)
            except StopIteration as end:
                result: Result = end.value
                return result
            ready = yield state  # 0 every tenth of a second in which nothing is ready
            silent_s = time.monotonic() - since
            if ready:
                since, reported = time.monotonic(), False
            elif silent_s > ANSWER_S:
                self.close()
                raise psycopg.OperationalError(f"the server has not answered for {ANSWER_S:.0f} s")
            elif silent_s > TOLD_S and not reported:
                logger.warning("The database has not answered for %.0f s.", silent_s)
                reported = True


def connector(url: sqlalchemy.URL, settings: dict[str, Any]) -> Callable[[], LimitedConnection]:
    """A function that connects to ``url``, with ``settings`` of libpq."""
    arguments, given = url.get_dialect()().create_connect_args(url)

    def connect() -> LimitedConnection:
        connection = LimitedConnection.connect(*arguments, **{**settings, **given}, autocommit=True)
        connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_S}s'")
        connection.autocommit = False
        return connection

    return connect
