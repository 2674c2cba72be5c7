"""A run of a study, from the composed configuration to the printed front: opens the study, runs trials, ends in time.

PyTorch, Lightning, Optuna and MLflow are imported only after the configuration was checked, so that errors appear at
once.
"""

from __future__ import annotations

import math
import random
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.config import parse_duration
from search.config.schema import validate_config
from search.workers.processes import WorkerProcesses, worker_count, worker_devices
from spaces.space import Space

if TYPE_CHECKING:
    from search.budget.deadline import Deadline
    from search.budget.patience import Patience
    from search.report.status import StatusLine
    from search.study.records import Record
    from spaces.tasks import Task

DEFAULT_TRIALS = 36  # n_trials=auto without budget and patience


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
    from search.budget.deadline import Deadline, OutOfTimeError
    from search.report.status import StatusLine

    start = time.monotonic() - used_s
    validate_config(config)
    space = Space(config["space"])
    n_trials, initial_params = _trials(config, space)
    budget_s = math.inf if config["budget"] is None else parse_duration(config["budget"], "budget")
    deadline = Deadline(budget_s, used_s=time.monotonic() - start)
    with StatusLine(deadline, shown=not further, level=config["output"]) as status:
        try:
            status.phase("importing PyTorch, Lightning, Optuna and MLflow")
            config = {**config, "workers": worker_count(config)}
            typed = "" if further else shlex.join(["python", "-m", *command])
            return _search(config, space, n_trials, initial_params, deadline, status, task, typed, further=further)
        except OutOfTimeError as error:
            if further:  # the first worker of the run has trials
                return 0
            print(error, file=sys.stderr)  # noqa: T201
            return 1
        except Exception as error:
            from search.study.retrying import unavailable

            if (cause := unavailable(error)) is None:
                raise
            print(f"The run ends: {cause}. The same command continues the study.", file=sys.stderr)  # noqa: T201
            return 1


def _trials(config: Mapping[str, Any], space: Space) -> tuple[int | None, Sequence[Mapping[str, Any]]]:
    """The total of trials, None for no limit, and the parameters of the first ones."""
    if config["n_trials"] is None:
        every = list(space.grid())
        random.Random(config["seed"]).shuffle(every)  # an interrupted run then has a random subset
        return len(every), every
    # The smallest architecture of each mechanism is fast to train and is at the cheap end of the front.
    first = list(space.smallest())
    if "checkpoint" in space.model:  # the whole network is likely to be at the other end
        first.insert(0, next(space.smallest(largest=True)))
    if config["n_trials"] == "auto":
        limited = any(config[name] is not None for name in ("budget", "patience", "min_gain"))
        return (None if limited else DEFAULT_TRIALS), first
    return config["n_trials"], first


def _described_budget(config: Mapping[str, Any], n_trials: int | None) -> str:
    """What ends the run, and the number of workers: ``36 trials, 10min, 2 workers``."""
    parts = [] if n_trials is None else [f"{n_trials} trials"]
    parts += [str(config["budget"])] if config["budget"] is not None else []
    parts += [f"{name}={config[name]}" for name in ("patience", "min_gain") if config[name] is not None]
    return ", ".join([*parts, *([f"{config['workers']} workers"] if config["workers"] > 1 else [])])


def _patience(config: Mapping[str, Any]) -> Patience | None:
    from search.budget.patience import Patience

    value, min_gain = config["patience"], config["min_gain"]
    if value is None and min_gain is None:
        return None
    trials = value if isinstance(value, int) else None
    seconds = parse_duration(value, "patience") if isinstance(value, str) else None
    return Patience(trials, seconds, min_gain)


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
    further: bool,
) -> int:
    """Everything that needs heavy imports; returns the exit code."""
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
        phase=status.phase,
        command=command,
        budget=_described_budget(config, n_trials),
    )
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
        grace_s, patience = config["storage"].get("grace_s", GRACE_S), _patience(config)
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
