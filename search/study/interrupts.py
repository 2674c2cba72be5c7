"""SIGINT, SIGTERM and a timer as exceptions in the main thread, not raised while a transaction is in progress.

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
SOON_S = 1e-6  # 0 would be no timer


class Stopped(KeyboardInterrupt):
    """The process received ``signal``, SIGINT or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class _Received:
    """An exception for a signal that was received, and whether it is held back; of a process, as its handlers are."""

    def __init__(self) -> None:
        self.held = False
        self._error: BaseException | None = None

    def stop(self, number: int, _: Any) -> None:
        """The handler: raises :class:`Stopped`, once; a second signal of either kind ends the process at once."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.receive(Stopped(number))

    def receive(self, error: BaseException) -> None:
        """Raise an exception, if it is held back later."""
        self._error = error
        self.raise_unless_held()

    def raise_unless_held(self) -> None:
        """Raise what was received while it was held back."""
        if self._error is not None and not self.held:
            error, self._error = self._error, None
            raise error

    def forget(self) -> None:
        """Drop what was received and not raised."""
        self._error = None


_received = _Received()


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise :class:`Stopped` for SIGINT or SIGTERM within the context; to be used in the main thread."""
    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, _received.stop) for number in SIGNALS
    }
    try:
        yield
    finally:
        _received.forget()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def raised_after(seconds: float, error: Callable[[], BaseException]) -> Iterator[None]:
    """Raise an exception after some seconds within the context; to be used in the main thread, and not nested.

    Args:
        seconds: from 0.
        error: makes the exception.
    """
    before = signal.signal(signal.SIGALRM, lambda *_: _received.receive(error()))
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, SOON_S))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        _received.forget()


@contextmanager
def signals_held(held: bool = True) -> Iterator[None]:
    """Hold :class:`Stopped`, or what a timer raises, back until the end of the context.

    With ``held=False`` it is raised, also within a context that holds it back. Nothing changes in other threads, where
    it is never raised.
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
