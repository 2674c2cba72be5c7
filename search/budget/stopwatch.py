"""Where the seconds of a run go, besides training and measuring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

NO_PARTS: Mapping[str, float] = MappingProxyType({})
RUNNING = "running trials"  # with their training and the measuring of their latencies


class Stopwatch:
    """Adds up seconds by name; those of an activity within another one count for the inner one alone.

    Attributes:
        seconds: by name.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._names: list[str] = []  # of the activities in progress, the innermost last
        self._since = 0.0

    def phase(self, name: str) -> None:
        """End the phase in progress, if there is one, and begin ``name``; none if it is empty."""
        self._count()
        self._names = [name] if name else []

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Count the time within the context."""
        self._count()
        self._names.append(name)
        try:
            yield
        finally:
            self._count()
            self._names.pop()

    def _count(self) -> None:
        now = self._clock()
        if self._names:
            name = self._names[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
