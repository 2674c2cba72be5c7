"""The progress of a run for programs: a JSON object a line, with ``event`` and the values of that event.

Events: ``phase``, ``status`` (after some silence), ``message``, ``trial_progress``, ``trial_ended``, ``front``,
``run_ended`` and ``seconds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from search.budget.stopwatch import NO_PARTS
from search.report.endings import describe_ending
from search.report.events import START, event
from search.report.rows import export_rows
from search.study.records import Objectives, Record, front
from spaces.baselines import BaselineResult

Write = Callable[[str], None]


class JsonReporter:
    """Has the methods of :class:`search.report.progress.ProgressReporter`.

    Args:
        objectives: the metric and the costs.
        n_trials: total of the study; None for no limit.
        baselines: results of the task's baselines.
        write: writes a line.
    """

    def __init__(
        self, objectives: Objectives, n_trials: int | None, baselines: Sequence[BaselineResult], *, write: Write
    ) -> None:
        self._objectives, self._n_trials, self._baselines, self._write = objectives, n_trials, baselines, write

    def print(self, text: str) -> None:
        """A message."""
        self._write(event("message", text=text))

    def note(self, text: str) -> None:
        """A message of interest only during the run."""
        self.print(text)

    def forward(self, line: str) -> None:
        """A line of another worker."""
        if line.startswith(START):
            self._write(line)
        else:
            self.print(line)

    def begin(self, records: Sequence[Record]) -> None:
        """Nothing: each line names its values."""

    def update_status(self, records: Sequence[Record]) -> None:
        """Nothing: there is no status line."""

    def progress(self, trial: Record) -> None:
        """See :class:`search.worker.Reporter`."""
        epochs = trial.architecture["train"]["epochs"]
        self._write(
            event(
                "trial_progress",
                trial=trial.number,
                worker=trial.worker,
                epoch=trial.epochs,
                epochs=epochs,
                metric=trial.last_metric,
            )
        )

    def waiting(self, others: int) -> None:
        """See :class:`search.worker.Reporter`."""

    @contextmanager
    def remeasuring(self) -> Iterator[None]:
        """That the front is measured again."""
        self._write(event("phase", text="measuring the latencies of the front again, in turns"))
        yield

    def trial_ended(self, trial: Record, records: Sequence[Record]) -> None:
        """A trial with all that is known of it."""
        members = {member.number for member in front(records, self._objectives)}
        self._write(
            event(
                "trial_ended",
                trial=trial.number,
                state=trial.state,
                ending=describe_ending(trial, {record.number: record for record in records}, self._objectives),
                on_front=trial.number in members,
                metric=trial.last_metric,
                epochs=trial.epochs,
                costs=dict(trial.costs),
                reason=trial.reason,
                beaten_by=[] if trial.stop is None else list(trial.stop.beaten_by),
                training_s=trial.training_s,
                worker=trial.worker,
                architecture=dict(trial.architecture),
                trials_started=len(records),
                n_trials=self._n_trials,
            )
        )

    def print_front(self, records: Sequence[Record]) -> None:
        """The members of the front, as ``search.front --export`` writes them, and the baselines."""
        members = front(records, self._objectives)
        self._write(
            event(
                "front",
                objectives=[self._objectives.metric, *self._objectives.costs],
                hypervolume=self._objectives.hypervolume(members),
                members=export_rows(members, self._objectives),
                baselines=[asdict(baseline) for baseline in self._baselines],
            )
        )

    def print_end(self, why: str) -> None:
        """Why the run ends, a clause."""
        self._write(event("run_ended", reason=why))

    def print_seconds(
        self, total: float, *, tracking_s: float, parts: Mapping[str, float] = NO_PARTS, workers: int = 1
    ) -> None:
        """The duration of the run, and of its parts besides training, measuring and tracking."""
        self._write(event("seconds", total=total, tracking=tracking_s, parts=dict(parts), workers=workers))
