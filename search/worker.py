"""One worker: takes trials from the shared study until the study has as many as it should."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from search.evaluate import Search, Watch, evaluate
from search.lifecycle import plan
from search.samplers.candidates import Candidate
from search.study.records import Record
from search.study.trials import counted, history, put_back, record, take_over, take_up
from spaces.architecture import key

MOST_FAILURES = 3  # in a row: then the fault is not the architecture's


class RepeatedFailureError(RuntimeError):
    """Trials keep failing; the message says how the last one did."""


class Stopped(KeyboardInterrupt):
    """The worker was asked to stop; ``signal`` says how."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class Audience(Watch, Protocol):
    """Whoever is told what a worker does."""

    def waiting(self, others: int) -> None:
        """Nothing is left to start, but other workers' trials are still running."""


def work(
    study: optuna.Study,
    search: Search,
    n_trials: int,
    audience: Audience,
    ended: Callable[[Record], None],
    *,
    grace_s: float,
) -> None:
    """Run trials until the study holds ``n_trials`` that ended, those of other workers counted, or all there are.

    Then those go on that were paused and are still worth their time.

    Args:
        audience: is told what goes on.
        ended: is called with every trial of this worker that has its result.
        grace_s: seconds of silence after which another worker's trial is taken over.

    Raises:
        Stopped: on Ctrl-C or SIGTERM, after the running trial was put back.
        RepeatedFailureError: on ``MOST_FAILURES`` failures in a row.
    """
    failures = 0
    with _signals_as_exceptions():
        while True:
            take_over(study, grace_s)
            trials = counted(study)
            running = sum(trial.state == TrialState.RUNNING for trial in trials)
            enough = len(trials) >= n_trials
            if not _plan(study, search, enough=enough):
                if not running:
                    return
                audience.waiting(running)
                time.sleep(1.0)
                continue
            trial = _one_trial(study, search, n_trials, audience)
            if trial is None:
                continue
            ended(trial)
            failures = failures + 1 if trial.state == "failed" else 0
            if failures == MOST_FAILURES:
                raise RepeatedFailureError(f"{failures} trials in a row failed; the last one: {trial.reason}")


def _plan(study: optuna.Study, search: Search, *, enough: bool) -> bool:
    """Queue what comes next, unless it is queued or left to the study's sampler; false if nothing is left to do."""
    trials = study.get_trials(deepcopy=False)
    if not enough and any(trial.state == TrialState.WAITING for trial in trials):
        return True
    known = history(study, search.objectives)
    choice = plan(
        search.sampler,
        search.pruner,
        known,
        lambda: search.pool.unseen({key(record.architecture) for record in known.records()}),
        enough=enough,
        repeated=bool(trials) and bool(trials[-1].user_attrs.get("surplus")),
    )
    if isinstance(choice, int):
        take_up(study, choice)
    elif isinstance(choice, Candidate):
        study.enqueue_trial(dict(choice.parameters))
    return choice is not None


def _one_trial(study: optuna.Study, search: Search, n_trials: int, audience: Audience) -> Record | None:
    """What became of one trial; None if it was not ours to finish."""
    current: list[optuna.Trial] = []

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        current.append(trial)
        # Of several workers that took the last place at the same moment, the first in order has it.
        if trial.number in [other.number for other in counted(study)[n_trials:]]:
            trial.set_user_attr("surplus", True)
            raise _NotOurs
        try:
            return evaluate(trial, search, audience)
        except (optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except Exception as error:
            trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
            trial.set_user_attr("traceback", traceback.format_exc())
            raise

    try:
        study.optimize(objective, n_trials=1, catch=(Exception,))
    except KeyboardInterrupt:
        for trial in current:
            frozen = study.get_trials(deepcopy=False)[trial.number]
            if frozen.state == TrialState.FAIL:  # not if it had ended just before
                put_back(study, frozen, tries=frozen.user_attrs.get("tries", 1))
        raise
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        # This worker was silent for so long that another one took the trial over.
        if not current or not study.get_trials(deepcopy=False)[current[0].number].state.is_finished():
            raise
        return None
    frozen = study.get_trials(deepcopy=False)[current[0].number]
    return None if frozen.user_attrs.get("surplus") else record(frozen)


class _NotOurs(Exception):  # noqa: N818, no error
    pass


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
