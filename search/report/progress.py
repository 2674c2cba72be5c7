"""The progress of a run in a terminal or a log: a line per trial, and a live view of workers and front."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.markup import escape
from rich.text import Text

from search.budget.gain import describe_gain, gain_per_hour
from search.budget.stopwatch import NO_PARTS, RUNNING
from search.report import lines
from search.report.characters import character_plot
from search.report.console import FrontPrinter
from search.report.endings import cut
from search.report.status import StatusLine, format_seconds
from search.study.records import Objectives, Record, State, front
from spaces.architecture import pattern
from spaces.baselines import BaselineResult

READ_EVERY_S = 2.0  # the trials of other workers, for the live view
MAX_WORKERS = 8  # shown
DATABASE = "starting and storing trials"  # what RUNNING is besides training and measuring
STYLES: Mapping[State, str] = {State.PRUNED: "dim", State.PAUSED: "dim", State.FAILED: "red"}


class ProgressReporter(FrontPrinter):
    """Prints the progress of a run.

    Args:
        objectives: as of :class:`FrontPrinter`.
        n_trials: total of the study; None for no limit.
        dimensions: as of :class:`FrontPrinter`.
        baselines: as of :class:`FrontPrinter`.
        measuring_s: seconds of measuring latency before the first trial.
        status: shows the status line and the live view.
        read: returns the trials of the study, for the live view.
    """

    def __init__(
        self,
        objectives: Objectives,
        n_trials: int | None,
        dimensions: Collection[str],
        baselines: Sequence[BaselineResult] = (),
        *,
        measuring_s: float = 0.0,
        status: StatusLine,
        read: Callable[[], Sequence[Record]] | None = None,
    ) -> None:
        super().__init__(objectives, dimensions, baselines)
        self._n_trials, self._read = n_trials, read
        self._start, self._n_ended, self._read_at = time.monotonic(), 0, 0.0
        self._study_status, self._trial_status = "", ""
        self._view: Sequence[str] = ()
        self._seconds, self._overhead_s = {"training_s": 0.0, "latency_s": measuring_s}, 0.0
        self._within_trials_s = 0.0  # training and measuring
        self._begun: dict[int, Record] = {}  # the trials that this worker runs, as they began
        self._level, self.console = status.level, status.console
        status.text, status.view = self.status_text, lambda: self._view

    def note(self, text: str) -> None:
        """Print what is of interest only during the run."""
        if self._level != "quiet":
            self.print(text)

    def forward(self, line: str) -> None:
        """Print a line of another worker, which may have ANSI codes of style."""
        self.console.print(Text.from_ansi(line))

    def begin(self, records: Sequence[Record]) -> None:
        """Print the names of the columns of the trials that follow."""
        self.update_status(records)
        self.note(lines.header(self._objectives))

    def progress(self, trial: Record) -> None:
        """See :class:`search.worker.Reporter`."""
        self._begun.setdefault(trial.number, trial)
        self._trial_status = _doing(trial, self._objectives)
        if trial.curve and self._level == "verbose":
            self.console.print(escape(f"      {self._trial_status}"), style="dim")
        if self._read is not None and time.monotonic() - self._read_at >= READ_EVERY_S:
            self.update_status(self._read())
            self._read_at = time.monotonic()

    def waiting(self, others: int) -> None:
        """See :class:`search.worker.Reporter`."""
        self._trial_status = f"waiting for {others} trial{'s' * (others > 1)} of other workers"

    @contextmanager
    def remeasuring(self) -> Iterator[None]:
        """Show that the front is measured again, and count the time as measuring latency."""
        self._trial_status, start = "measuring the latencies of the front again, in turns", time.monotonic()
        yield
        self._trial_status = ""
        self._seconds["latency_s"] += time.monotonic() - start

    def trial_ended(self, trial: Record, records: Sequence[Record]) -> None:
        """Print a trial's line, in bold if it is on the front of ``records``."""
        self._n_ended += 1
        self._trial_status = ""
        begun = self._begun.pop(trial.number, Record(trial.number, State.RUNNING))
        training_s = trial.training_s - begun.training_s  # of a resumed trial, not those before it was paused
        self._seconds["training_s"] += training_s
        self._seconds["latency_s"] += trial.latency_s - begun.latency_s
        self._within_trials_s += training_s + trial.latency_s - begun.latency_s
        self._overhead_s += trial.overhead * training_s
        self.update_status(records)
        if self._level == "quiet":
            return
        on_front = trial.number in {member.number for member in front(records, self._objectives)}
        line = lines.trial_line(
            trial,
            {record.number: record for record in records},
            self._objectives,
            self._dimensions,
            on_front=on_front,
            width=self.console.width if self.console.is_terminal else lines.WIDTH,
        )
        self.console.print(escape(line), style="bold green" if on_front else STYLES.get(trial.state, "default"))

    def update_status(self, records: Sequence[Record]) -> None:
        """Update the status line and the live view from the trials of the study."""
        ended = [trial for trial in records if trial.state != State.RUNNING]
        counts = {state: sum(trial.state == state for trial in ended) for state in (State.PAUSED, State.PRUNED)}
        stopped = "".join(f" · {count} {state}" for state, count in counts.items() if count)
        members = front(records, self._objectives)
        share = self._objectives.hypervolume(members)
        growth = describe_gain(gain_per_hour(records, self._objectives))
        gain, left = f", {growth}" if growth else "", ""
        if self._n_ended and self._n_trials is not None:
            per_trial = (time.monotonic() - self._start) / self._n_ended
            seconds = per_trial * max(0, self._n_trials - len(ended))
            left = f" · {format_seconds(seconds)} to n_trials"
        total = "" if self._n_trials is None else f"/{self._n_trials}"
        self._study_status = (
            f"{len(ended)}{total} trials{stopped} · front {len(members)} · hypervolume {share:.3f}{gain}{left}"
        )
        if self.console.is_terminal:
            self._view = [*self._workers(records), *character_plot(records, self._objectives)]

    def _workers(self, records: Sequence[Record]) -> list[str]:
        """What each worker trains, if there are several."""
        running = [record for record in records if record.state == State.RUNNING and record.worker]
        shown = [f"  {record.worker} · {_doing(record, self._objectives)}" for record in running[:MAX_WORKERS]]
        if len(running) > MAX_WORKERS:
            shown.append(f"  and {len(running) - MAX_WORKERS} more workers")
        return [cut(line, self.console.width) for line in shown] if len(running) > 1 else []

    def status_text(self) -> str:
        """The state of the study, and of the trial that runs."""
        return f"{self._study_status} · {self._trial_status}" if self._trial_status else self._study_status

    def print_end(self, why: str) -> None:
        """Print why the run ends, a clause."""
        self.print(f"The run ends: {why}.")

    def print_seconds(
        self, total: float, *, tracking_s: float, parts: Mapping[str, float] = NO_PARTS, workers: int = 1
    ) -> None:
        """Print the seconds of training, measuring latency, tracking and the rest, of the first of ``workers``.

        ``parts`` are the parts of the rest that are known, by name; of ``RUNNING`` training and measuring are
        subtracted. Those that round to 0 s are left out.
        """
        rest = total - tracking_s - sum(self._seconds.values())
        shown = {
            "training": self._seconds["training_s"],
            "measuring latency": self._seconds["latency_s"],
            "tracking": tracking_s,
            "other": rest,
        }
        shares = ", ".join(f"{name} {seconds:.0f} s ({seconds / total:.0%})" for name, seconds in shown.items())
        training = self._seconds["training_s"]
        share = f"; training overhead {self._overhead_s / training:.0%}" if training else ""
        first = f", the first of {workers} workers" if workers > 1 else ""
        self.print(f"{total:.0f} s{first}: {shares}{share}")
        known = {DATABASE if name == RUNNING else name: seconds for name, seconds in parts.items()}
        if RUNNING in parts:
            known[DATABASE] -= self._within_trials_s
        known["the rest"] = rest - sum(known.values())
        listed = sorted((item for item in known.items() if item[1] >= 0.5), key=lambda item: -item[1])
        if parts and listed:
            self.print(f"Of the other {rest:.0f} s: {', '.join(f'{name} {s:.0f} s' for name, s in listed)}.")


def _doing(trial: Record, objectives: Objectives) -> str:
    """What a worker does that runs a trial."""
    text = f"trial {trial.number}: {pattern(trial.architecture)}"
    if trial.curve:
        epochs = trial.architecture["train"]["epochs"]
        text += f" · epoch {trial.epochs}/{epochs} {objectives.metric} {trial.curve[-1][1]:.3f}"
    return text
