"""One worker: runs trials of the shared study until it has as many as it should."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from search.evaluate import Search, evaluate, values
from search.lifecycle import queue_next
from search.study.records import Record, State
from search.study.requeue import fail_stale, requeue_interrupted
from search.study.store import TrialStore

MAX_FAILURES = 3  # in a row: then the architecture is not the cause


class RepeatedFailureError(RuntimeError):
    """Trials keep failing; the message says how the last one did."""


class Stopped(KeyboardInterrupt):
    """The worker was asked to stop by ``signal``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class Reporter(Protocol):
    """Is told what a worker does."""

    def progress(self, trial: Record) -> None:
        """A trial has begun, starts training, or has trained another epoch."""

    def waiting(self, others: int) -> None:
        """Nothing is left to start, but other workers' trials are still running."""


def work(
    store: TrialStore,
    search: Search,
    n_trials: int,
    reporter: Reporter,
    ended: Callable[[Record], None],
    *,
    grace_s: float,
) -> None:
    """Run trials until the study holds ``n_trials``, those of other workers counted, or all there are.

    After that, paused trials are resumed while they are worth their time.

    Args:
        store: the study's trials.
        search: what decides about them.
        n_trials: the study's total.
        reporter: is told what goes on.
        ended: is called with each trial of this worker that has ended and counts.
        grace_s: seconds without a heartbeat after which another worker's trial is requeued.

    Raises:
        Stopped: on Ctrl-C or SIGTERM, after the running trial was requeued.
        RepeatedFailureError: on ``MAX_FAILURES`` failures in a row.
    """
    failures = 0
    with _signals_as_exceptions():
        while True:
            fail_stale(store.study, grace_s)
            records = store.records()
            if not queue_next(store, search.proposer, search.objectives, may_start=len(records) < n_trials):
                running = sum(record.state == State.RUNNING for record in records)
                if not running:
                    return
                reporter.waiting(running)
                time.sleep(1.0)
                continue
            record = _run_one(store, search, n_trials, reporter)
            if record is None:
                continue
            ended(record)
            failures = failures + 1 if record.state == State.FAILED else 0
            if failures == MAX_FAILURES:
                raise RepeatedFailureError(f"{failures} trials in a row failed; the last one: {record.reason}")


def _run_one(store: TrialStore, search: Search, n_trials: int, reporter: Reporter) -> Record | None:
    """Run one trial to its end; None if it does not count.

    Through ``Study.optimize`` rather than ask and tell, since only there Optuna sends heartbeats.
    """
    study, current = store.study, []

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        current.append(trial)
        # Of several workers that took the last place at the same moment, the one with the lowest number has it.
        if trial.number in [other.number for other in store.records()[n_trials:]]:
            trial.set_user_attr("outcome", State.OVER_QUOTA)
            raise optuna.TrialPruned
        try:
            with closing(evaluate(trial, store, search)) as steps:
                for record in steps:
                    reporter.progress(record)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            trial.set_user_attr("traceback", traceback.format_exc())
            raise
        result = values(record, store, search.objectives)
        if result is None:
            raise optuna.TrialPruned(record.reason)
        return result

    try:
        study.optimize(objective, n_trials=1, catch=(Exception,))
    except KeyboardInterrupt:
        for trial in current:
            frozen = study.get_trials(deepcopy=False)[trial.number]
            if frozen.state == TrialState.FAIL:  # not if it had ended just before
                requeue_interrupted(study, frozen, tries=frozen.user_attrs.get("tries", 1))
        raise
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        # This worker sent no heartbeat for so long that another one requeued the trial.
        if not current or not study.get_trials(deepcopy=False)[current[0].number].state.is_finished():
            raise
        return None
    record = store.record(current[0].number)
    return None if record.state in (State.DUPLICATE, State.OVER_QUOTA) else record


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into :class:`Stopped`, once; a second one ends the process at once."""

    def stop(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
