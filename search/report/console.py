"""What a run shows on the terminal: a line a trial, one live line of progress, and the front as a table."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from search.study.records import Objectives, Record, State, front
from spaces.architecture import describe, pattern

WIDTH_OF_A_FILE = 160  # characters, where the output is no terminal


class Page:
    """What can be printed of a study at any time.

    Args:
        objectives: what the front is judged by.
        places: the dotted places of the settings worth showing: the space's dimensions.
    """

    def __init__(self, objectives: Objectives, places: Collection[str]) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = WIDTH_OF_A_FILE
        self._objectives, self._places = objectives, places

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(escape(text))

    def show_front(self, records: Sequence[Record]) -> None:
        """Print the front as a table, the cheapest first."""
        members = front(records, self._objectives)
        if not members:
            self.say("The front is empty: no trial was trained to the end.")
            return
        rows = [_row(member, self._objectives, self._places) for member in members]
        table = Table(title=f"The front: {len(members)} of {len(records)} trials", title_justify="left")
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            text = name == "architecture"
            table.add_column(name, justify="left" if text else "right", no_wrap=not text)
        for row in rows:
            table.add_row(*(row.get(name, "") for name in names))
        self.console.print(table)
        self.say(self._summary_of(members))

    def _summary_of(self, members: Sequence[Record]) -> str:
        """What a front holds, in a sentence."""
        metric, cost = self._objectives.metric, self._objectives.costs[0]
        names = sorted({name for member in members for name in member.architecture["pattern"]})
        best = min(members, key=lambda member: self._objectives.loss(member.metric or 0.0))
        share = members[0].costs[cost] / best.costs[cost]
        return (
            f"{len(members)} points, {len(names)} mechanisms ({', '.join(names)}). "
            f"The best {metric} is {best.metric:.4f}; the cheapest has {share:.2f} of its {cost}."
        )


class Display(Page):
    """What a run prints. As a context it keeps the live line at the bottom.

    Args:
        objectives: as of :class:`Page`.
        n_trials: the study's total.
        places: as of :class:`Page`.
        measuring_s: seconds that went into measuring latency before the first trial.
    """

    def __init__(
        self, objectives: Objectives, n_trials: int, places: Collection[str], *, measuring_s: float = 0.0
    ) -> None:
        super().__init__(objectives, places)
        self._n_trials = n_trials
        self._began, self._ended_here = time.monotonic(), 0
        self._study, self._trial = "", ""
        self._spent, self._outside = {"training_s": 0.0, "latency_s": measuring_s}, 0.0
        self._live = Live(console=self.console, transient=True, refresh_per_second=4, get_renderable=self._line)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def progress(self, trial: Record) -> None:
        """A trial has begun, starts training, or has trained another epoch."""
        self._trial = f"trial {trial.number}: {pattern(trial.architecture)}"
        if trial.curve:
            epochs = trial.architecture["train"]["epochs"]
            metric = f"{self._objectives.metric} {trial.curve[-1][1]:.3f}"
            self._trial += f" · epoch {trial.epochs}/{epochs} {metric}"

    def waiting(self, others: int) -> None:
        """Only other workers' trials are left."""
        self._trial = f"waiting for {others} trial{'s' * (others > 1)} of other workers"

    @contextmanager
    def measuring_again(self) -> Iterator[None]:
        """Count the time spent inside as spent on measuring latency."""
        self._trial, start = "measuring the front again, side by side", time.monotonic()
        yield
        self._trial = ""
        self._spent["latency_s"] += time.monotonic() - start

    def ended(self, trial: Record, records: Sequence[Record]) -> None:
        """Print a trial's line, in bold if it is on the front of ``records``."""
        self._ended_here += 1
        self._trial = ""
        self._spent["training_s"] += trial.training_s
        self._spent["latency_s"] += trial.latency_s
        self._outside += trial.overhead * trial.training_s
        self.summarise(records)
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
        return f"{line}  {describe(trial.architecture, self._places)}  {reason}".rstrip()

    def summarise(self, records: Sequence[Record]) -> None:
        """Bring the live line up to date with the study's trials."""
        ended = [trial for trial in records if trial.state != State.RUNNING]
        counts = {state: sum(trial.state == state for trial in ended) for state in (State.PAUSED, State.PRUNED)}
        stopped = "".join(f" · {count} {state}" for state, count in counts.items() if count)
        members = front(records, self._objectives)
        share = self._objectives.hypervolume(members)
        left = ""
        if self._ended_here:
            pace = (time.monotonic() - self._began) / self._ended_here
            seconds = round(pace * max(0, self._n_trials - len(ended)))
            left = f" · {seconds // 60}:{seconds % 60:02d} left"
        self._study = (
            f"{len(ended)}/{self._n_trials} trials{stopped} · front {len(members)} · hypervolume {share:.3f}{left}"
        )

    def _line(self) -> Text:
        line = f"{self._study} · {self._trial}" if self._trial else self._study
        return Text(line, style="cyan", overflow="ellipsis", no_wrap=True)

    def show_seconds(self, total: float) -> None:
        """Print where the time went, in seconds."""
        rest = total - sum(self._spent.values())
        parts = {"training": self._spent["training_s"], "measuring latency": self._spent["latency_s"], "all else": rest}
        shares = ", ".join(f"{name} {seconds:.0f} s ({seconds / total:.0%})" for name, seconds in parts.items())
        trained = self._spent["training_s"]
        outside = f"; of the training {self._outside / trained:.0%} outside the networks" if trained else ""
        self.say(f"{total:.0f} s: {shares}{outside}")


_STYLES: Mapping[State, str] = {State.PRUNED: "dim", State.PAUSED: "dim", State.FAILED: "red"}


def _row(member: Record, objectives: Objectives, places: Collection[str]) -> dict[str, str]:
    row = {"trial": str(member.number)}
    for name in objectives.costs:
        spread = f" ±{member.timing.spread:.1%}" if name == "latency_ms" and member.timing else ""
        row[name] = f"{member.costs[name]:.4g}{spread}"
    row[objectives.metric] = f"{member.metric:.4f}"
    if objectives.metric in member.test_metrics:
        row["on test"] = f"{member.test_metrics[objectives.metric]:.4f}"
    row["parameters"] = f"{member.costs['parameters']:.0f}"
    row["architecture"] = describe(member.architecture, places)
    return row
