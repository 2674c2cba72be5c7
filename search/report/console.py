"""The front as a table in the terminal, with the baselines and a plot in characters."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from rich.markup import escape
from rich.table import Table

from search.budget.gain import describe_gain, gain_per_hour
from search.report.baselines import describe_baselines, describe_defeat
from search.report.characters import character_plot
from search.report.rows import BASELINE, columns, front_rows
from search.report.status import stdout_console
from search.report.timings import describe_timings
from search.study.records import Objectives, Record, front
from search.study.selection import exchange_rates
from spaces.baselines import BaselineResult

WIDE = 100  # characters of a line, in which all columns have room


class FrontPrinter:
    """Prints the front of a study.

    Args:
        objectives: the metric and the costs.
        dimensions: dotted names of the settings to show: the dimensions of the space.
        baselines: results of the task's baselines.
    """

    def __init__(
        self,
        objectives: Objectives,
        dimensions: Collection[str],
        baselines: Sequence[BaselineResult] = (),
    ) -> None:
        self.console = stdout_console()
        self._objectives, self._dimensions, self._baselines = objectives, dimensions, baselines

    def print(self, text: str, *, style: str | None = None) -> None:
        """Print a line, on a terminal wrapped between words; an address or a path is not broken."""
        if self.console.is_terminal:
            text = textwrap.fill(text, self.console.width, break_long_words=False, break_on_hyphens=False)
        self.console.print(escape(text), style=style)

    def print_front(self, records: Sequence[Record]) -> None:
        """Print the front as a table, by ascending cost, with the baselines below it."""
        members = front(records, self._objectives)
        if not members:
            self.print("The front is empty: no trial is complete.")
            if self._baselines:
                self.print(describe_baselines(self._baselines, self._objectives))
            return
        rows = front_rows(
            members,
            self._objectives,
            self._dimensions,
            baselines=self._baselines,
        )
        table = Table(title=f"The front: {len(members)} of {len(records)} trials", title_justify="left")
        names = columns(rows)
        if self.console.width < WIDE and "parameters" not in self._objectives.costs:
            names.remove("parameters")  # the architectures are more important
        for name in names:
            text = name == "architecture"
            table.add_column(name, justify="left" if text else "right", no_wrap=not text)
        for at, row in enumerate(rows):
            if at == len(members):
                table.add_section()
            style = "dim" if row["trial"] == BASELINE else None
            table.add_row(*(row.get(name, "") for name in names), style=style)
        self.console.print(table)
        for line in character_plot(records, self._objectives):
            self.print(line)
        self.print(self._summary(members))
        if rates := self._exchange_rates(members):
            self.print(rates)
        if gain := describe_gain(gain_per_hour(records, self._objectives)):
            self.print(f"The later half of the trials changed the hypervolume by {gain} of training and measuring.")
        if defeat := describe_defeat(members, self._baselines, self._objectives):
            self.print(defeat, style="bold yellow")
        if timings := describe_timings(members, records, self._objectives):
            self.print(f"{timings[0].upper()}{timings[1:]}.")

    def _summary(self, members: Sequence[Record]) -> str:
        """Size, mechanisms and extremes of the front."""
        metric, cost = self._objectives.metric, self._objectives.costs[0]
        names = sorted({name for member in members for name in member.architecture["pattern"]})
        best = self._objectives.best_of(members)
        share = members[0].costs[cost] / best.costs[cost]
        cheapest = f"; the cheapest has {share:.2f} of its {cost}" if len(members) > 1 else ""
        return (
            f"{_count(len(members), 'point')}, {_count(len(names), 'mechanism')} ({', '.join(names)}). "
            f"The best {metric} is {best.metric:.4f}{cheapest}."
        )

    def _exchange_rates(self, members: Sequence[Record]) -> str:
        """What a unit of the cost buys along the front; empty if there is no order of costs."""
        rates = zip(members, exchange_rates(members, self._objectives), strict=True)
        found = [f"{rate:.3g} to trial {member.number}" for member, rate in rates if rate is not None]
        unit = f"{self._objectives.metric} per {self._objectives.costs[0].removeprefix('latency_')}"
        return f"Improvement of {unit} along the front: {', '.join(found)}." if found else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
