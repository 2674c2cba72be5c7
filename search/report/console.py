"""Terminal output of a run: one line per trial, a live status line, and the front as a table."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from search.budget.gain import describe_gain, gain_per_hour
from search.report.baselines import describe_baselines, describe_defeat
from search.report.status import StatusLine, format_seconds, stdout_console
from search.report.timings import describe_timings
from search.study.records import Objectives, Record, State, front
from search.study.selection import exchange_rates
from spaces.architecture import describe, pattern
from spaces.baselines import BaselineResult


class FrontPrinter:
    """Prints the front of a study.

    Args:
        objectives: the metric and the costs.
        dimensions: dotted names of the settings to show: the dimensions of the space.
        baselines: results of the task's baselines.
    """

    def __init__(
        self, objectives: Objectives, dimensions: Collection[str], baselines: Sequence[BaselineResult] = ()
    ) -> None:
        self.console = stdout_console()
        self._objectives, self._dimensions, self._baselines = objectives, dimensions, baselines

    def print(self, text: str) -> None:
        """Print a line."""
        self.console.print(escape(text))

    def print_ansi(self, line: str) -> None:
        """Print a line that may have ANSI codes of style."""
        self.console.print(Text.from_ansi(line))

    def print_front(self, records: Sequence[Record]) -> None:
        """Print the front as a table, by ascending cost, with the baselines below it."""
        members = front(records, self._objectives)
        if not members:
            self.print("The front is empty: no trial is complete.")
            if self._baselines:
                self.print(describe_baselines(self._baselines, self._objectives))
            return
        rows = [table_row(member, self._objectives, self._dimensions) for member in members]
        measured = any(member.timing and member.timing.reference_ms for member in members)
        baselines = [baseline_row(each, self._objectives, measured=measured) for each in self._baselines]
        table = Table(title=f"The front: {len(members)} of {len(records)} trials", title_justify="left")
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            text = name == "architecture"
            table.add_column(name, justify="left" if text else "right", no_wrap=not text)
        for row in rows:
            table.add_row(*(row.get(name, "") for name in names))
        if baselines:
            table.add_section()
        for row in baselines:
            table.add_row(*(row.get(name, "") for name in names), style="dim")
        self.console.print(table)
        self.print(self._summary(members))
        if rates := self._exchange_rates(members):
            self.print(rates)
        if gain := describe_gain(gain_per_hour(records, self._objectives)):
            self.print(f"The later half of the trials changed the hypervolume by {gain} of training and measuring.")
        if defeat := describe_defeat(members, self._baselines, self._objectives):
            self.console.print(escape(defeat), style="bold yellow")
        if timings := describe_timings(members, records, self._objectives):
            self.print(f"{timings[0].upper()}{timings[1:]}.")

    def _summary(self, members: Sequence[Record]) -> str:
        """Size, mechanisms and extremes of the front."""
        metric, cost = self._objectives.metric, self._objectives.costs[0]
        names = sorted({name for member in members for name in member.architecture["pattern"]})
        best = min(members, key=lambda member: self._objectives.loss(member.metric or 0.0))
        share = members[0].costs[cost] / best.costs[cost]
        return (
            f"{len(members)} points, {len(names)} mechanisms ({', '.join(names)}). "
            f"The best {metric} is {best.metric:.4f}; the cheapest has {share:.2f} of its {cost}."
        )

    def _exchange_rates(self, members: Sequence[Record]) -> str:
        """What a unit of the cost buys along the front; empty if there is no order of costs."""
        rates = zip(members, exchange_rates(members, self._objectives), strict=True)
        found = [f"{rate:.3g} to trial {member.number}" for member, rate in rates if rate is not None]
        unit = f"{self._objectives.metric} per {self._objectives.costs[0].removeprefix('latency_')}"
        return f"Improvement of {unit} along the front: {', '.join(found)}." if found else ""


class ConsoleReporter(FrontPrinter):
    """Prints the progress of a run.

    Args:
        objectives: as of :class:`FrontPrinter`.
        n_trials: total of the study; None for no limit.
        dimensions: as of :class:`FrontPrinter`.
        baselines: as of :class:`FrontPrinter`.
        measuring_s: seconds of measuring latency before the first trial.
        status: shows the status line.
    """

    def __init__(
        self,
        objectives: Objectives,
        n_trials: int | None,
        dimensions: Collection[str],
        baselines: Sequence[BaselineResult] = (),
        *,
        measuring_s: float = 0.0,
        status: StatusLine | None = None,
    ) -> None:
        super().__init__(objectives, dimensions, baselines)
        self._n_trials = n_trials
        self._start, self._n_ended = time.monotonic(), 0
        self._study_status, self._trial_status = "", ""
        self._seconds, self._overhead_s = {"training_s": 0.0, "latency_s": measuring_s}, 0.0
        self._begun: dict[int, Record] = {}  # the trials that this worker runs, as they began
        if status is not None:
            self.console, status.text = status.console, self.status_text

    def progress(self, trial: Record) -> None:
        """See :class:`search.worker.Reporter`."""
        self._begun.setdefault(trial.number, trial)
        self._trial_status = f"trial {trial.number}: {pattern(trial.architecture)}"
        if trial.curve:
            epochs = trial.architecture["train"]["epochs"]
            metric = f"{self._objectives.metric} {trial.curve[-1][1]:.3f}"
            self._trial_status += f" · epoch {trial.epochs}/{epochs} {metric}"

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
        self._overhead_s += trial.overhead * training_s
        self.update_status(records)
        on_front = trial.number in {member.number for member in front(records, self._objectives)}
        self.console.print(
            escape(self._trial_line(trial)), style="bold green" if on_front else _STYLES.get(trial.state, "default")
        )

    def _trial_line(self, trial: Record) -> str:
        cost = self._objectives.costs[0]
        costs = f"{cost} {trial.costs[cost]:7.4g}" if cost in trial.costs else ""
        last = trial.last_metric
        metric = f"{self._objectives.metric} {last:.3f}" if last is not None else ""
        reason = "" if trial.state == State.COMPLETE else f"{trial.state}: {trial.reason}"
        line = f"{trial.number:4d}  {costs:{len(cost) + 8}}  {metric:{len(self._objectives.metric) + 6}}"
        return f"{line}  {describe(trial.architecture, self._dimensions)}  {reason}".rstrip()

    def update_status(self, records: Sequence[Record]) -> None:
        """Update the status line from the trials of the study."""
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

    def status_text(self) -> str:
        """The state of the study, and of the trial that runs."""
        return f"{self._study_status} · {self._trial_status}" if self._trial_status else self._study_status

    def print_seconds(self, total: float, *, workers: int = 1) -> None:
        """Print the seconds of training, measuring latency and everything else, of the first of ``workers``."""
        rest = total - sum(self._seconds.values())
        parts = {
            "training": self._seconds["training_s"],
            "measuring latency": self._seconds["latency_s"],
            "other": rest,
        }
        shares = ", ".join(f"{name} {seconds:.0f} s ({seconds / total:.0%})" for name, seconds in parts.items())
        training = self._seconds["training_s"]
        share = f"; training overhead {self._overhead_s / training:.0%}" if training else ""
        first = f", the first of {workers} workers" if workers > 1 else ""
        self.print(f"{total:.0f} s{first}: {shares}{share}")


_STYLES: Mapping[State, str] = {State.PRUNED: "dim", State.PAUSED: "dim", State.FAILED: "red"}


def table_row(member: Record, objectives: Objectives, dimensions: Collection[str]) -> dict[str, str]:
    """A member of the front as cells by column."""
    row = {"trial": str(member.number)}
    for name in objectives.costs:
        spread = f" ±{member.timing.spread:.1%}" if name == "latency_ms" and member.timing else ""
        row[name] = f"{member.costs[name]:.4g}{spread}"
    row[objectives.metric] = f"{member.metric:.4f}"
    if objectives.metric in member.test_metrics:
        row["on test"] = f"{member.test_metrics[objectives.metric]:.4f}"
    row["parameters"] = f"{member.costs['parameters']:.0f}"
    row["architecture"] = describe(member.architecture, dimensions)
    return row


def baseline_row(baseline: BaselineResult, objectives: Objectives, *, measured: bool) -> dict[str, str]:
    """Its latency is left out where that of networks is computed, not ``measured``."""
    metric = objectives.metric
    row = {"trial": "baseline", metric: f"{baseline.metrics[metric]:.4f}", "architecture": baseline.name}
    if measured:
        row["latency_ms"] = f"{baseline.latency_ms:.4g}"
    if metric in baseline.test_metrics:
        row["on test"] = f"{baseline.test_metrics[metric]:.4f}"
    return row
