"""Metrics and tags of the parent run of a study, with the note that MLflow shows as its description."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from search.budget.gain import in_order_of_end, work_s
from search.config import hide_passwords
from search.report import rows
from search.report.answers import Description, answers, in_short, next_commands
from search.report.baselines import best_baseline, describe_baselines, describe_defeat
from search.report.importance import Importance
from search.report.timings import describe_timings
from search.study.records import Objectives, Record, State, front
from search.tracking.summaries import NOTE_LIMIT, MetricValue, RunData
from spaces.baselines import BaselineResult

CODE_WIDTH = 70  # characters of a line of code that fit the column of descriptions at 1280 pixels


def study_data(
    records: Sequence[Record],
    objectives: Objectives,
    links: Mapping[str, str],
    baselines: Sequence[BaselineResult] = (),
    description: Description | None = None,
    importance: Importance = MappingProxyType({}),
    reason: str = "",
) -> RunData:
    """Data of a study: hypervolume, number of trials by state, best baseline, and the note.

    The note says what was found and, with a ``description``, what was searched and what to do next, and has the front
    as a table. The step of the metrics is the number of trials that have ended; that of ``hypervolume_by_seconds`` is
    the seconds of measuring and training until then, of all workers.

    Args:
        records: the study.
        objectives: the metric and the costs.
        links: addresses in the UI by their text.
        baselines: results of the task's baselines.
        description: what was searched.
        importance: of the dimensions.
        reason: why the latest run ended, a clause; empty while it runs.
    """
    states = [record.state for record in records]
    counts = {str(state): states.count(state) for state in (State.COMPLETE, State.PAUSED, State.PRUNED, State.FAILED)}
    ended = sum(counts.values())
    members = front(records, objectives)
    share = objectives.hypervolume(members)
    numbers = {"hypervolume": share, "front_size": len(members)}
    numbers |= {f"trials_{state}": count for state, count in counts.items()}
    tags = {"ended": str(ended)}
    if best := best_baseline(baselines, objectives):
        tags["baseline"] = best.name  # its metrics are those of its own run
    arrow = "↑" if objectives.direction == "maximize" else "↓"
    dimensions = None if description is None else description.dimensions
    lines = (
        *answers(records, objectives, baselines, description, importance),
        describe_baselines(baselines, objectives),
        describe_defeat(members, baselines, objectives),
        describe_timings(members, records, objectives),
        f"The latest run ended: {reason}." if reason else "",
    )
    short = () if description is None else in_short(description, records, objectives, baselines)
    head = "\n\n".join(
        (
            *([_fold(short)] if short else []),
            f"**{rows.markdown_text(objectives.metric)} {arrow} against "
            f"{', '.join(f'{cost} ↓' for cost in objectives.costs)}** · "
            f"{ended} trials: {', '.join(f'{count} {state}' for state, count in counts.items() if count)} · "
            f"hypervolume {share:.4f} of 1",
            *map(rows.markdown_text, filter(None, lines)),
            *([] if description is None else _sections(description, members)),
            " · ".join(f"[{rows.markdown_text(name)}]({address})" for name, address in links.items()),
            "",
        )
    )
    shown = baselines if members else ()
    table = rows.front_rows(members, objectives, dimensions, baselines=shown)
    text = head + rows.markdown(table, limit=NOTE_LIMIT - len(head))
    worked_s = round(sum(map(work_s, in_order_of_end(records))))
    return RunData(
        tags={**tags, "mlflow.note.content": hide_passwords(text)},
        values=[
            *(MetricValue(name, float(value), ended) for name, value in numbers.items()),
            MetricValue("hypervolume_by_seconds", share, worked_s),
        ],
    )


def _fold(short: Sequence[tuple[str, str]]) -> str:
    """The answers in one paragraph, as Markdown.

    Of a long note MLflow shows 100 pixels before a click, five lines, of which it fades the lower three more and more.
    In a window of 1280 pixels a line has 90 characters, in one of 1440 115.
    """
    return ". ".join(f"**{name}:** {rows.markdown_text(text)}" for name, text in short)


def _sections(description: Description, members: Sequence[Record]) -> list[str]:
    """What was searched and what to do next, as Markdown."""
    question = "; ".join(f"{name}: {rows.markdown_text(value)}" for name, value in description.rows if value)
    commands = "\n".join(f"# {what}\n{_continued(command)}" for what, command in next_commands(description, members))
    return [f"**Searched.** {question}.", f"**Next.**\n\n```sh\n{commands.replace('```', '')}\n```"]


def _continued(command: str) -> str:
    """A command in lines that MLflow's column has room for: a longer one pushes the other column out of the window."""
    if len(command) <= CODE_WIDTH:
        return command
    words = [shlex.quote(word) for word in shlex.split(command)]
    lines = words[:1]
    for word in words[1:]:
        if len(f"{lines[-1]} {word}") <= CODE_WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return " \\\n".join(lines)
