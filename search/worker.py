"""A worker: runs trials of a shared study until it has ``n_trials`` or the time budget of the run is used up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

import optuna

from search.budget.deadline import OUT_OF_TIME, TrialSeconds, was_cut
from search.budget.patience import Patience
from search.budget.stopwatch import RUNNING
from search.evaluate import Search, evaluate, values
from search.lifecycle import queue_next
from search.study.attributes import OpenTrial, write_error, write_interruption
from search.study.interrupts import signals_as_exceptions, signals_held
from search.study.records import Record, State
from search.study.requeue import fail_stale
from search.study.store import TrialStore

MAX_FAILURES = 3  # in a row: then the cause is not the architecture


class RepeatedFailureError(RuntimeError):
    """Several trials in a row failed; the message has the last error."""


class Reporter(Protocol):
    """Receives the progress of a worker."""

    def progress(self, trial: Record) -> None:
        """Called when a trial starts, before its first epoch, and after each epoch."""

    def waiting(self, others: int) -> None:
        """Called while nothing is left to start and ``others`` trials of other workers are running."""


def work(
    store: TrialStore,
    search: Search,
    n_trials: int | None,
    reporter: Reporter,
    ended: Callable[[Record], None],
    *,
    grace_s: float,
    patience: Patience | None = None,
) -> str:
    """Run trials until the study has ``n_trials``, including those of other workers, or the space is exhausted.

    After that, paused trials are resumed as long as the proposer asks for it. The deadline of ``search`` and
    ``patience`` may end the run before. Returns why the run ended, as a clause.

    Args:
        store: the study's trials.
        search: how they are run.
        n_trials: total of the study; None for no limit.
        reporter: receives the progress.
        ended: called with each trial of this worker that has ended and counts towards ``n_trials``.
        grace_s: seconds without a heartbeat after which another worker's trial is requeued.
        patience: ends the run once the front has stopped growing.

    Raises:
        Stopped: on Ctrl-C or SIGTERM, after the running trial was requeued.
        RepeatedFailureError: after ``MAX_FAILURES`` failures in a row.
    """
    n_trials, failures = n_trials or sys.maxsize, 0
    for number in store.ended():  # a worker that was killed has not deleted their checkpoints
        search.learner.discard(number)
    for paused in store.records():
        if was_cut(paused) and not search.deadline.is_over():
            store.resume(paused.number)
    with signals_as_exceptions():
        while True:
            fail_stale(store.study, grace_s)
            for number in store.lost():
                search.learner.discard(number)
            records = store.records()
            if search.deadline.is_over():
                return OUT_OF_TIME
            if patience is not None and (reason := patience.reason_to_end(records, search.objectives)):
                return reason
            with search.deadline.stopwatch.measured("choosing trials"):
                queued = _queue(store, search, records, n_trials)
            if not queued:
                running = sum(record.state == State.RUNNING for record in records)
                if not running:
                    return _nothing_left(search, records, n_trials)
                reporter.waiting(running)
                time.sleep(1.0)
                continue
            with search.deadline.stopwatch.measured(RUNNING):
                record = _run_one(store, search, n_trials, reporter)
            if record is None:
                continue
            ended(record)
            failures = failures + 1 if record.state == State.FAILED else 0
            if failures == MAX_FAILURES:
                raise RepeatedFailureError(f"{failures} trials in a row failed; the last one: {record.reason}")


def _queue(store: TrialStore, search: Search, records: Sequence[Record], n_trials: int) -> bool:
    """Queue the next trial; false if nothing is left.

    While a typical trial does not fit into the time left, paused trials that finish in time come first, then new ones
    if the fastest so far would have finished.
    """
    left_s, seconds = search.deadline.left_s(), TrialSeconds.of(records)

    def queue(*, may_start: bool) -> bool:
        return queue_next(store, search.proposer, search.objectives, search.deadline, may_start=may_start)

    if len(records) >= n_trials:
        return queue(may_start=False)
    if left_s >= seconds.typical or store.waiting():
        return queue(may_start=True)
    return queue(may_start=False) or (left_s >= seconds.fastest and queue(may_start=True))


def _nothing_left(search: Search, records: Sequence[Record], n_trials: int) -> str:
    """Why no trial can be started or resumed."""
    if len(records) >= n_trials:
        return f"the study has {len(records)} trials (n_trials={n_trials})"
    left_s = search.deadline.left_s()
    if left_s < 1:
        return OUT_OF_TIME
    if left_s < TrialSeconds.of(records).typical:
        return f"the {left_s:.0f} s left of the time budget are too short for another trial"
    return "every architecture of the space has been tried"


def _run_one(store: TrialStore, search: Search, n_trials: int, reporter: Reporter) -> Record | None:
    """Run one trial to its end; None if it does not count towards ``n_trials``.

    By ``Study.optimize`` rather than ask and tell, since Optuna sends heartbeats only there.
    """
    study, current = store.study, []

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        current.append(trial)
        # Several workers may start the last trial at the same time: the one with the lowest number counts.
        over = store.number(trial.number) in [other.number for other in store.records()[n_trials:]]
        if over or store.is_queued_twice(trial.number):
            OpenTrial(trial, store.read(trial.number)).write(state=State.OVER_QUOTA)
            raise optuna.TrialPruned
        try:
            with signals_held(False), closing(evaluate(trial, store, search)) as steps:
                for record in steps:
                    reporter.progress(record)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise
        except KeyboardInterrupt:
            write_interruption(trial)
            raise
        except Exception as error:
            write_error(trial, error)
            search.learner.discard(store.number(trial.number))
            raise
        result = values(record, store, search.objectives)
        if result is None:
            raise optuna.TrialPruned(record.reason)
        return result

    try:
        # Not while Optuna starts the thread that sends heartbeats: these would be sent for ever.
        with signals_held():
            study.optimize(objective, n_trials=1, catch=(Exception,))
    except KeyboardInterrupt:
        store.requeue_interrupted()
        raise
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        # Another worker requeued the trial, as this one had sent no heartbeat for ``grace_s`` seconds.
        if not current or not study.get_trials(deepcopy=False)[current[0].number].state.is_finished():
            raise
        return None
    record = store.read(current[0].number)
    if record.state in (State.DUPLICATE, State.OVER_QUOTA):  # one that was queued twice may run elsewhere
        return None
    if record.state != State.PAUSED:  # after it was told: a worker that is killed before it loses no epoch
        search.learner.discard(record.number)
    return record
