"""The measurements of :mod:`search.load.__main__`: workers that share a study, and decisions of a single one."""

from __future__ import annotations

import functools
import math
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage

from search.load.objective import DIRECTIONS, EPOCHS, OBJECTIVES, ended_trials, fake_search
from search.pruning import Pruner
from search.samplers.seeded import SeededPerTrial
from search.study.attributes import TRAINING
from search.study.bulk import add_trials
from search.study.history import History
from search.study.records import Record, State
from search.study.storage import GRACE_S, close_storage, open_storage, open_study
from search.study.store import TrialStore
from search.worker import work
from spaces.architecture import key

DECISIONS = 10
CALLS = [name for name in vars(BaseStorage) if name.startswith(("get_", "set_", "create_"))]


@dataclass
class Spent:
    """Seconds that one process spent in its storage."""

    storage_s: float = 0.0
    wall_s: float = 0.0  # in all
    reports: list[float] = field(default_factory=list)  # seconds of each write of a learning curve
    calls: int = 0
    inside: bool = False  # a call

    def watch(self, storage: BaseStorage) -> None:
        """Count the calls of the main thread, those within others once."""
        for name in CALLS:
            setattr(storage, name, self._timed(getattr(storage, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        main = threading.main_thread()

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.inside or threading.current_thread() is not main:
                return call(*args, **kwargs)
            start, self.inside = time.perf_counter(), True
            try:
                return call(*args, **kwargs)
            finally:
                seconds, self.inside = time.perf_counter() - start, False
                self.storage_s += seconds
                self.calls += 1
                if TRAINING in args:
                    self.reports.append(seconds)

        return timed


@dataclass(frozen=True)
class Row:
    """What a number of workers took for trials of a study that has ``before`` trials already."""

    workers: int
    before: int
    calls: float  # of the storage, a trial
    storage_ms: float  # of a worker, a trial
    report_ms: float  # the median write of a learning curve
    slow_report_ms: float  # 99 % of them took no longer
    other_ms: float  # of a worker, a trial: Optuna, the decisions and the reading of records
    trials_per_s: float  # of all workers
    problems: tuple[str, ...]  # what was lost, run twice or left running


@dataclass(frozen=True)
class Decision:
    """What one worker of a study with ``trials`` ended trials takes to read them and to decide."""

    trials: int
    read_s: float  # to read all trials at its start
    memory_mb: float  # by which they increase the process
    propose_ms: float  # CPU time, median: what to start or resume next
    stop_ms: float  # CPU time, median: whether to stop a trial after an epoch


class NoReporter:
    """A reporter that prints nothing."""

    def progress(self, trial: Record) -> None:
        """See :class:`~search.worker.Reporter`."""

    def waiting(self, others: int) -> None:
        """See :class:`~search.worker.Reporter`."""


@contextmanager
def opened(url: str, name: str, sampler: BaseSampler | None = None, *, seed: int = 0) -> Iterator[optuna.Study]:
    """The study of that name, created if it is missing; by default it is sampled at random."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(url=url)
    seeded = SeededPerTrial(lambda seed: sampler or RandomSampler(seed=seed), seed=seed)
    try:
        yield open_study(storage, name, directions=DIRECTIONS, sampler=seeded, identity={"load": True})
    finally:
        close_storage(storage)


def fill(url: str, name: str, count: int) -> int:
    """Add ended trials to a study until it has ``count``; returns how many it has."""
    with opened(url, name) as study:
        known = len(study.get_trials(deepcopy=False))
        add_trials(study, ended_trials(count - known, seed=known))
    return max(count, known)


def run_workers(url: str, name: str, *, workers: int, trials: int) -> Row:
    """Let ``workers`` processes run ``trials`` further trials of a study."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with opened(url, name) as study:
        before = len(study.get_trials(deepcopy=False))
    start_together = (context.Barrier(workers),)
    with ProcessPoolExecutor(workers, context, initializer=_set_barrier, initargs=start_together) as pool:
        try:
            found = list(pool.map(functools.partial(_worker, url, name, before + trials), range(workers)))
        except BaseException:  # such as a signal; the others would go on, and leaving the pool waits for them
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    storage_s, wall_s = sum(each.storage_s for each in found), [each.wall_s for each in found]
    reports = sorted(seconds for each in found for seconds in each.reports)
    with opened(url, name) as study:
        problems = tuple(lost(study, before + trials))
    return Row(
        workers=workers,
        before=before,
        calls=sum(each.calls for each in found) / trials,
        storage_ms=1e3 * storage_s / trials,
        report_ms=1e3 * median(reports),
        slow_report_ms=1e3 * reports[int(0.99 * len(reports))],
        other_ms=1e3 * (sum(wall_s) - storage_s) / trials,
        trials_per_s=trials / max(wall_s),
        problems=problems,
    )


_barrier: list[Barrier] = []  # of a worker's process


def _set_barrier(barrier: Barrier) -> None:
    _barrier.append(barrier)


def _worker(url: str, name: str, total: int, seed: int) -> Spent:
    """Run trials until the study has ``total``, from the moment on at which all workers have opened it."""
    with opened(url, name, seed=seed) as study:
        store, search, spent = TrialStore(study), fake_search(RandomSampler(seed=seed)), Spent()
        store.records()
        spent.watch(study._storage)
        _barrier[0].wait()
        start = time.perf_counter()
        work(store, search, total, NoReporter(), lambda record: None, grace_s=GRACE_S)
        spent.wall_s = time.perf_counter() - start
    return spent


def lost(study: optuna.Study, total: int) -> Iterator[str]:
    """What is wrong with a study that workers have run to ``total`` trials."""
    records = TrialStore(study).records()
    if len(records) != total:
        yield f"{len(records)} trials instead of {total}"
    unfinished = sum(not trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    if unfinished:
        yield f"{unfinished} are running or queued"
    incomplete = sum(record.state != State.COMPLETE or record.epochs != EPOCHS for record in records)
    if incomplete:
        yield f"{incomplete} are incomplete"
    twice = total - len({key(record.architecture) for record in records})
    if twice > 0:
        yield f"{twice} were run twice"


def decide(url: str, name: str, sampler: BaseSampler, pruner: Pruner) -> Decision:
    """Measure decisions in a process of its own, whose memory is that of one worker."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_decide, url, name, sampler, pruner).result()


def _decide(url: str, name: str, sampler: BaseSampler, pruner: Pruner) -> Decision:
    search = fake_search(sampler, pruner)
    search.proposer.propose(History(OBJECTIVES), may_start=True, repeats=False)  # imports, and fills the pool
    before_mb, start = _peak_mb(), time.perf_counter()
    with opened(url, name) as study:
        history = TrialStore(study).history(OBJECTIVES)
        read_s = time.perf_counter() - start
        proposing = [_cpu_ms(lambda: search.proposer.propose(history, may_start=True, repeats=False)) for _ in range(3)]
        rows = history.records()[:: max(1, len(history) // DECISIONS)]
        stopping = [_cpu_ms(lambda: search.pruner.should_stop(_after(row, 3), history)) for row in rows]  # noqa: B023
        memory_mb = _peak_mb() - before_mb
    return Decision(len(history), read_s, memory_mb, median(proposing), median(stopping))


def _after(record: Record, epochs: int) -> Record:
    """A trial as it was while it ran."""
    return replace(record, state=State.RUNNING, metric=None, curve=record.curve[:epochs])


def _cpu_ms(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return 1e3 * (time.process_time() - start)


def _peak_mb() -> float:
    """The most memory that this process has had; where ``/proc`` is missing, or its parent before it started it."""
    known = Path("/proc/self/status")
    lines = known.read_text().splitlines() if known.exists() else []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return next((float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), peak)


def available_mb() -> float:
    """Memory that processes can take without swapping; infinite where the system does not tell."""
    known = Path("/proc/meminfo")
    lines = known.read_text().splitlines() if known.exists() else []
    return next((float(line.split()[1]) / 2**10 for line in lines if line.startswith("MemAvailable")), math.inf)
