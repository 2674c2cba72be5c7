"""SIGINT and SIGTERM as an exception in the main thread that is not raised while a transaction is in progress.

Raised within a driver of a database it would leave the connection in the midst of a statement. The driver's clean-up
then fails with an error of its own, which replaces the exception: the signal is lost, and the trial may fail.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The process received ``signal``, SIGINT or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class _Received:
    """A signal that was received, and whether it is held back; of a process, as its handlers are."""

    def __init__(self) -> None:
        self.held, self._number = False, 0

    def receive(self, number: int, _: Any) -> None:
        """The handler: raises :class:`Stopped`, once; a second signal of either kind ends the process at once."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._number = number
        self.raise_unless_held()

    def raise_unless_held(self) -> None:
        """Raise what was received while it was held back."""
        if self._number and not self.held:
            number, self._number = self._number, 0
            raise Stopped(number)

    def forget(self) -> None:
        """Drop what was received and not raised."""
        self._number = 0


_received = _Received()


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise :class:`Stopped` for SIGINT or SIGTERM within the context; to be used in the main thread."""
    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, _received.receive) for number in SIGNALS
    }
    try:
        yield
    finally:
        _received.forget()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held(held: bool = True) -> Iterator[None]:
    """Hold :class:`Stopped` back until the end of the context; with ``held=False`` raise it, also within one that does.

    Nothing changes in other threads, where it is never raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _received.held = _received.held, held
    try:
        _received.raise_unless_held()
        yield
    finally:
        _received.held = before
        _received.raise_unless_held()
