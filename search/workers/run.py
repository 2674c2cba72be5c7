"""A run of a study, from the composed configuration to the printed front: opens the study, runs trials, ends in time.

PyTorch, Lightning, Optuna and MLflow are imported only after the configuration was checked, so that errors appear at
once.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from search.budget.ends import budget_of, describe_ends, patience_of, planned_trials
from search.config.schema import validate_config
from search.workers.processes import WorkerProcesses, worker_count, worker_devices
from spaces.space import Space

if TYPE_CHECKING:
    from search.budget.deadline import Deadline
    from search.report.status import StatusLine
    from search.study.records import Record
    from spaces.tasks import Task


def run(
    config: Mapping[str, Any],
    *,
    used_s: float = 0.0,
    task: Task | None = None,
    further: bool = False,
    command: Sequence[str] = (),
) -> int:
    """Search with ``config``, the composed configuration as plain values, and return the exit code.

    Args:
        config: the configuration.
        used_s: seconds of the run that have passed before.
        task: the task of the configuration, if it was constructed before.
        further: whether this is a further worker of a run that prints and tracks its end.
        command: the words that the user typed after ``python -m``, to be stored.

    Raises:
        ConfigError: the configuration is invalid; nothing has been written.
    """
    from search.budget.alarm import ending_in_time
    from search.budget.deadline import Deadline, OutOfTimeError
    from search.report.status import StatusLine

    start = time.monotonic() - used_s
    validate_config(config)
    space = Space(config["space"])
    n_trials, initial_params = planned_trials(config, space)
    deadline = Deadline(budget_of(config), used_s=time.monotonic() - start)
    with StatusLine(deadline, shown=not further, level=config["output"]) as status, ExitStack() as preparation:

        def out_of_time(error: OutOfTimeError) -> int:
            if further:  # the first worker of the run has trials
                return 0
            print(error, file=sys.stderr, flush=True)  # noqa: T201
            return 1

        def exit_at_once(error: OutOfTimeError) -> None:
            status.close()
            os._exit(out_of_time(error))

        def phase(text: str) -> None:
            deadline.check()
            status.phase(text)

        try:
            preparation.enter_context(ending_in_time(deadline, exit_at_once))
            phase("importing PyTorch, Lightning, Optuna and MLflow")
            config = {**config, "workers": worker_count(config)}
            typed = "" if further else shlex.join(["python", "-m", *command])
            return _search(
                config,
                space,
                n_trials,
                initial_params,
                deadline,
                status,
                task,
                typed,
                phase=phase,
                prepared=preparation.close,
                further=further,
            )
        except OutOfTimeError as error:
            return out_of_time(error)
        except Exception as error:
            from search.study.retrying import unavailable

            if (cause := unavailable(error)) is None:
                raise
            print(f"The run ends: {cause}. The same command continues the study.", file=sys.stderr)  # noqa: T201
            return 1


def _search(
    config: Mapping[str, Any],
    space: Space,
    n_trials: int | None,
    initial_params: Sequence[Mapping[str, Any]],
    deadline: Deadline,
    status: StatusLine,
    task: Task | None,
    command: str,
    *,
    phase: Callable[[str], None],
    prepared: Callable[[], None],
    further: bool,
) -> int:
    """Everything that needs heavy imports; returns the exit code.

    ``phase`` is called with what is done next before the first trial, and ``prepared`` after it.
    """
    from search.assemble import MEASURING_LARGEST, build_search
    from search.budget.reserve import NEAR_FRONT, closing_s, remeasuring_s
    from search.costs.remeasure import remeasure
    from search.report.baselines import describe_baselines
    from search.report.importance import importance
    from search.report.json_lines import JsonReporter
    from search.report.progress import ProgressReporter
    from search.study.interrupts import Stopped
    from search.study.records import State
    from search.study.storage import GRACE_S
    from search.worker import RepeatedFailureError, work

    devices = worker_devices(config["device"], config["workers"])
    config = {**config, "device": devices[0]}
    deadline.reserve_s = closing_s(0.0)
    built = build_search(
        config,
        space,
        initial_params,
        task=task,
        deadline=deadline,
        phase=phase,
        command=command,
        budget=describe_ends(config, n_trials),
    )
    prepared()
    store, search, tracking = built.store, built.search, built.tracking
    deadline.stopwatch.phase("")
    measuring_s = deadline.stopwatch.seconds.pop(MEASURING_LARGEST, 0.0)
    reporter: ProgressReporter | JsonReporter
    if status.level == "json":
        reporter = JsonReporter(search.objectives, n_trials, built.baselines, write=status.write)
        status.text = lambda: "running trials"
    else:
        reporter = ProgressReporter(
            search.objectives,
            n_trials,
            space.dimension_names(),
            built.baselines,
            measuring_s=measuring_s,
            status=status,
            read=None if further else store.records,
        )
    tracking_s = tracked_s = 0.0  # the longest pause between trials, and the sum of those for tracking

    def trim_weights(records: Sequence[Record]) -> None:
        if dropped := built.weights.trim(records, search.objectives, megabytes=config["weights_mb"]):
            numbers = ", ".join(map(str, dropped))
            reporter.print(f"The weights of trials {numbers} do not fit into weights_mb={config['weights_mb']:g}.")

    def ended(trial: Record) -> None:
        nonlocal tracking_s, tracked_s
        records, before = store.records(), time.monotonic()
        reporter.trial_ended(trial, records)
        trim_weights(records)
        logging = time.monotonic()
        tracking.log(trial.number, records)
        tracked_s += time.monotonic() - logging
        tracking_s = max(tracking_s, time.monotonic() - before)
        deadline.reserve_s = closing_s(tracking_s) + remeasuring_s(records, search.objectives)

    workers = config["workers"]
    if not further:
        if built.baselines:
            reporter.note(describe_baselines(built.baselines, search.objectives))
        for note in built.notes:
            reporter.note(note)
        if workers > 1:
            reporter.note(f"{workers} workers run trials side by side (workers=1 for one).")
    code, why, end, records = 0, "", "", store.records()
    deadline.reserve_s = closing_s(tracking_s) + remeasuring_s(records, search.objectives)
    if further:
        reporter.update_status(records)
    else:
        reporter.begin(records)
    try:
        grace_s, patience = config["storage"].get("grace_s", GRACE_S), patience_of(config)
        with WorkerProcesses(config, [] if further else devices[1:], deadline, reporter.forward) as others:
            why = work(store, search, n_trials, reporter, ended, grace_s=grace_s, patience=patience)
            if further:
                return 0
            reporter.print_end(why)
            others.finish()
        front_s = remeasuring_s(store.records(), search.objectives) / NEAR_FRONT
        if deadline.total_left_s() < closing_s(tracking_s) + front_s:
            reporter.note("The latencies of the front are not measured again, as too little time is left.")
        else:
            with reporter.remeasuring():
                remeasure(store, built.costs, search.objectives)
    except Stopped as stop:
        code, why = 128 + stop.signal, f"it was interrupted ({stop.signal.name})"
        end = f"{why}; the running trial was requeued, and the same command continues the study"
    except RepeatedFailureError as error:
        code, why, end = 1, str(error), str(error)
    if further:
        return code
    if end:
        reporter.print_end(end)
    store.write_run_end(why)
    records = store.records()
    trim_weights(records)
    reporter.print_front(records)
    status.text = lambda: "finishing tracking"
    finishing = time.monotonic()
    tracking.finish(records, why, lambda: importance(store.study, search.objectives))
    tracked_s += time.monotonic() - finishing
    parts = deadline.stopwatch.seconds
    reporter.print_seconds(deadline.elapsed_s(), tracking_s=tracked_s, parts=parts, workers=workers)
    name = shlex.quote(config["study"])
    if failed := [record.number for record in records if record.state == State.FAILED]:
        reporter.note(f"Why trial {failed[-1]} failed: python -m search.front {name} --why {failed[-1]}")
    if failed and len(failed) == len(records):  # too few to have ended the run by RepeatedFailureError
        code = code or 1
    reporter.note(f"As one page: python -m search.report {name}")
    if tracking.ui_command():
        reporter.note(f"See every trial and the front: {tracking.ui_command()}")
    if tracking.url():
        reporter.note(f"The study in MLflow: {tracking.url()}")
    return code
