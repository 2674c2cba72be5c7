"""What a run does before its first trial ends when the time budget is used up, in the midst of any phase.

Checks between phases do not bound one that is long, such as learning a tokenizer, fitting a baseline or training a
parent. So a timer raises an exception in the main thread. While that executes a library written in another language,
which no exception reaches, it does nothing; a second timer, in another thread, ends the process then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from search.budget.deadline import Deadline, OutOfTimeError
from search.study.interrupts import raised_after

END_S = 3.0  # that a process takes to end after it has imported PyTorch
REACTION_S = 2.0  # within which the main thread has ended by the exception


@contextmanager
def ending_in_time(deadline: Deadline, exit_at_once: Callable[[OutOfTimeError], None]) -> Iterator[None]:
    """Raise :class:`OutOfTimeError` within the context, so early that the process can end in time.

    Without a budget, and in other threads than the main one, nothing happens.

    Args:
        deadline: of the run.
        exit_at_once: ends the process; called in another thread, if the main thread has not left the context
            ``REACTION_S`` seconds after the exception was due.
    """
    if not deadline.limited or threading.current_thread() is not threading.main_thread():
        yield
        return
    left_s = max(0.0, deadline.total_left_s() - END_S)
    watchdog = threading.Timer(left_s + REACTION_S, lambda: exit_at_once(deadline.out_of_time()))
    watchdog.daemon = True
    watchdog.start()
    try:
        with raised_after(left_s, deadline.out_of_time):
            yield
    finally:
        watchdog.cancel()
