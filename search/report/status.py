"""The status of a run from its first second: a live line on a terminal, elsewhere a plain line after some silence.

Only light imports: it is shown before PyTorch is imported.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from search.budget.deadline import Deadline
from search.config import Output
from search.report.events import event

_COUNT = re.compile(r",? \d")  # how far a phase is, such as 3 of 18: its seconds are those of all of it
SEPARATOR = " · "  # of the parts of a status
MIN_ROWS = 20  # of a terminal, for the live view
FILE_WIDTH = 160  # characters per line if the output is not a terminal
SILENT_S = 4.0  # after which the status is printed if the output is not a terminal
LONGEST_SILENT_S = 60.0  # while only the status is printed each time takes twice as long, up to this: logs stay short


class TimedConsole(Console):
    """A console that knows when something was last printed; see :func:`time.monotonic`."""

    printed_at = 0.0

    def print(self, *objects: Any, **settings: Any) -> None:
        """See :meth:`rich.console.Console.print`."""
        super().print(*objects, **settings)
        self.printed_at = time.monotonic()


def stdout_console() -> TimedConsole:
    """The console of a command: of fixed width if the output is not a terminal."""
    console = TimedConsole(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


class StatusLine:
    """What a run is doing, as a context manager.

    Attributes:
        text: returns what the run is doing; it may be replaced.
        view: returns lines that are shown below it on a terminal; it may be replaced.

    Args:
        deadline: of the run; the line begins with the time that is left.
        console: prints the line.
        shown: false in a process whose output is not the user's terminal: nothing is printed.
        level: how much is printed; ``quiet`` shows no status line, and ``json`` prints phases and status as JSON.
    """

    def __init__(
        self,
        deadline: Deadline,
        console: TimedConsole | None = None,
        *,
        shown: bool = True,
        level: Output = "text",
    ) -> None:
        self.console, self.level = console or stdout_console(), level
        self._shown, self._announces = shown and level in ("text", "verbose"), shown and level != "quiet"
        self.text: Callable[[], str] = lambda: ""
        self.view: Callable[[], Sequence[str]] = lambda: ()
        self._deadline = deadline
        self._live = Live(console=self.console, transient=True, refresh_per_second=4, get_renderable=self._renderable)
        self._silent_s, self._status_at = SILENT_S, 0.0  # to wait, and when the status was last printed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._print_regularly, name="status", daemon=True)

    def __enter__(self) -> Self:
        if self._shown and self.console.is_terminal:
            self._live.start()
        elif self._announces:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown and self.console.is_terminal:
            self._live.stop()
        elif self._announces:
            self._ended.set()
            self._thread.join()

    def phase(self, text: str) -> None:
        """Show that the next phase before the first trial begins, such as "reading the data".

        Raises:
            OutOfTimeError: the time budget is used up.
        """
        self._deadline.check()
        self.text = lambda: text
        self._deadline.stopwatch.phase(_COUNT.split(text)[0])
        if self._announces and self.level == "json":
            self.write(event("phase", text=text))
        elif self._shown and not self.console.is_terminal:
            self.console.print(escape(f"{text} ..."))

    def write(self, line: str) -> None:
        """Print a line as it is."""
        self.console.print(Text(line), crop=False, overflow="ignore")

    def line(self) -> str:
        """The status, beginning with the time left of the budget or else the time since the run began."""
        if self._deadline.limited:
            when = f"{format_seconds(max(0.0, self._deadline.total_left_s()))} left"
        else:
            when = format_seconds(self._deadline.elapsed_s())
        return f"{when}{SEPARATOR}{self.text()}"

    def print_if_silent(self) -> None:
        """Print the status unless something was printed within the last ``SILENT_S`` seconds.

        While nothing but the status is printed, that time doubles, up to ``LONGEST_SILENT_S``.
        """
        if self.console.printed_at != self._status_at:
            self._silent_s = SILENT_S
        if time.monotonic() - self.console.printed_at < self._silent_s:
            return
        if self.level == "json":
            left_s = self._deadline.total_left_s() if self._deadline.limited else None
            self.write(event("status", text=self.text(), elapsed_s=self._deadline.elapsed_s(), left_s=left_s))
        else:
            self.console.print(escape(self.line()))
        self._status_at, self._silent_s = self.console.printed_at, min(2 * self._silent_s, LONGEST_SILENT_S)

    def _print_regularly(self) -> None:
        while not self._ended.wait(1.0):
            self.print_if_silent()

    def _renderable(self) -> Group:
        status = wrapped(self.line(), self.console.width)
        lines = [Text(line, style="cyan", overflow="ellipsis", no_wrap=True) for line in status]
        if self.console.height >= MIN_ROWS:
            lines += [Text(line, style="cyan", overflow="crop", no_wrap=True) for line in self.view()]
        return Group(*lines)


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a status: each has as many parts as fit ``width`` characters; all but the first are indented."""
    lines: list[str] = []
    for part in text.split(SEPARATOR):
        if lines and len(lines[-1] + SEPARATOR + part) <= width:
            lines[-1] += SEPARATOR + part
        else:
            lines.append(f"  {part}" if lines else part)
    return lines


def format_seconds(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
