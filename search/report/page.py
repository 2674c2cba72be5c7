"""A study as one HTML page that stands alone: question, answer, charts, the front's members and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from search.config import hide_passwords
from search.report.baselines import best_baseline, describe_defeat
from search.report.charts import draw_curves, draw_hypervolume, draw_importance, importance, svg
from search.report.console import baseline_row, table_row
from search.report.figure import draw
from search.report.plots import mechanism
from search.report.timings import describe_timings, format_time
from search.study.records import Objectives, Record, State, front
from search.study.stored import StoredStudy
from spaces.architecture import describe, format_value, pattern, settings

TEMPLATE = Path(__file__).with_name("page.html")
TENTH = 0.1


def page(stored: StoredStudy) -> str:
    """The page of a study; what users typed is escaped."""
    store, objectives = stored.store, stored.objectives
    records, baselines = store.records(), store.baselines()
    members = front(records, objectives)
    measured = any(member.timing and member.timing.reference_ms for member in members)
    rows = [table_row(member, objectives, stored.dimensions) for member in members]
    rows += [baseline_row(each, objectives, measured=measured) for each in baselines]
    timings = describe_timings(members, records, objectives)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=store.study.study_name,
        answers=list(_answers(stored, records, members)),
        defeat=describe_defeat(members, baselines, objectives),
        question=list(_question(stored, records)),
        charts=list(_charts(stored, records, members)),
        columns=list(dict.fromkeys(name for row in rows for name in row)),
        rows=rows,
        notes=[f"{timings[0].upper()}{timings[1:]}."] if timings else [],
        cards=[_card(member, stored) for member in members],
        commands=list(_commands(stored, members)),
    )
    return hide_passwords(html)


def _answers(stored: StoredStudy, records: Sequence[Record], members: Sequence[Record]) -> Iterator[str]:
    """What was found, in sentences."""
    objectives = stored.objectives
    metric, cost = objectives.metric, objectives.costs[0]
    if not members:
        yield "No trial is complete yet."
        return
    best = min(members, key=lambda member: objectives.loss(member.metric or 0.0))
    yield f"The best {metric} is {_metrics(best, objectives)}, by {_named(best, stored)}."
    cheap = [member for member in members if member.costs[cost] <= TENTH * best.costs[cost]]
    if len(members) > 1:
        chosen = cheap[-1] if cheap else members[0]
        share = chosen.costs[cost] / best.costs[cost]
        yield f"At {share:.2f} of its {cost} it is {_metrics(chosen, objectives)}, by {_named(chosen, stored)}."
    if baseline := best_baseline(stored.store.baselines(), objectives):
        test = baseline.test_metrics.get(metric)
        on_test = "" if test is None else f" (test {test:.4f})"
        yield f"The best baseline, {baseline.name}, has {baseline.metrics[metric]:.4f}{on_test}."
    if len(objectives.costs) == 1 and len(members) > 1:
        groups = [(name, list(each)) for name, each in groupby(members, key=lambda each: mechanism(each.architecture))]
        spans = (f"{name} from {each[0].costs[cost]:.4g}" for name, each in groups)
        yield f"By ascending {cost}, the front consists of: {', '.join(spans)}."
    states = [record.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
    trained, whole = sum(record.epochs for record in records), sum(map(_all_epochs, records))
    yield f"Trials: {counts}. They were trained for {trained} of {whole} epochs."


def _all_epochs(record: Record) -> int:
    return int(record.architecture.get("train", {}).get("epochs", 0))


def _metrics(member: Record, objectives: Objectives) -> str:
    test = member.test_metrics.get(objectives.metric)
    return f"{member.metric:.4f}" + ("" if test is None else f" (test {test:.4f})")


def _named(member: Record, stored: StoredStudy) -> str:
    """A member of the front in a sentence."""
    cost = stored.objectives.costs[0]
    text = describe(member.architecture, stored.dimensions)
    return f"trial {member.number} at {cost} {member.costs[cost]:.4g}: {text}"


def _question(stored: StoredStudy, records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """What was searched, as names and values."""
    identity, objectives = stored.store.identity(), stored.objectives
    better = "higher" if objectives.direction == "maximize" else "lower"
    yield "objectives", f"{objectives.metric} ({better} is better) against {', '.join(objectives.costs)}"
    task = {name: value for name, value in identity["task"].items() if name != "_target_" and value is not None}
    yield "task", str(identity["task"]["_target_"]).rpartition(".")[2]
    yield "settings of the task", ", ".join(f"{name}={value}" for name, value in task.items()) or "the defaults"
    yield "mechanisms", ", ".join(identity["space"]["attention"])
    yield "dimensions", ", ".join(sorted(stored.dimensions)) or "none"
    if "seed" in identity:
        yield "seed", str(identity["seed"])
    hosts = sorted({record.timing.host for record in records if record.timing})
    yield "latency measured on", ", ".join(hosts) or "no machine yet"
    if start := stored.store.run_start():
        yield "command of the latest run", start["command"]
        yield "versions", ", ".join(f"{name} {version}" for name, version in start["versions"].items())
    if end := stored.store.run_end():
        yield "end of the latest run", f"{format_time(end[1])}: {end[0]}"


def _charts(stored: StoredStudy, records: Sequence[Record], members: Sequence[Record]) -> Iterator[dict[str, str]]:
    """Charts with their captions."""
    objectives, name = stored.objectives, stored.store.study.study_name
    metric, cost = objectives.metric, objectives.costs[0]
    points = ", ".join(f"{member.costs[cost]:.4g}: {member.metric:.4f}" for member in members)
    drawn = draw(records, objectives, title=name, baselines=stored.store.baselines())
    caption = f"{metric} against {cost}: the front by mechanism in colours, dominated and stopped trials in grey."
    yield {"svg": svg(drawn, f"The front, {metric} by {cost}: {points}"), "caption": caption}
    trials = f"{len(records)} trials"
    drawn = draw_curves(records, objectives)
    yield {"svg": svg(drawn, f"Learning curves of {trials}"), "caption": f"{metric} by epoch; the front in colours."}
    reached = objectives.hypervolume(members)
    yield {
        "svg": svg(draw_hypervolume(records, objectives), f"Hypervolume over time, up to {reached:.4f}"),
        "caption": f"Hypervolume over the seconds of work; it has reached {reached:.4f} of 1.",
    }
    if shares := importance(stored.store.study, objectives):
        first = {objective: max(each, key=lambda at, each=each: each[at]) for objective, each in shares.items()}  # type: ignore[misc]
        label = ", ".join(f"{dimension} for {objective}" for objective, dimension in first.items())
        caption = "Share of the variance of each objective that a dimension explains (fANOVA, over complete trials)."
        yield {"svg": svg(draw_importance(shares), f"Most important are {label}"), "caption": caption}


def _card(member: Record, stored: StoredStudy) -> dict[str, Any]:
    """All that is known of a member."""
    objectives = stored.objectives
    rows = [(f"validation {name}", f"{value:.4f}") for name, value in member.validation_metrics.items()]
    rows += [(f"test {name}", f"{value:.4f}") for name, value in member.test_metrics.items()]
    rows += [(name, f"{value:,.5g}") for name, value in member.costs.items()]
    if member.timing:
        rows.append(("latency measured", f"{format_time(member.timing.at)}, spread {member.timing.spread:.1%}"))
    rows.append(("seconds of training", f"{member.training_s:.1f}"))
    rows.append(("blocks", pattern(member.architecture)))
    rows += [(name, format_value(value)) for name, value in settings(member.architecture).items()]
    cost = objectives.costs[0]
    numbers = f"{objectives.metric} {_metrics(member, objectives)}, {cost} {member.costs[cost]:.4g}"
    return {
        "number": member.number,
        "summary": f"Trial {member.number}: {numbers}, {pattern(member.architecture)}",
        "rows": rows,
    }


def _commands(stored: StoredStudy, members: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """What to do next, with the command for it."""
    name = shlex.quote(stored.store.study.study_name)
    if start := stored.store.run_start():
        yield "Continue the study, with more trials or time:", start["command"]
    yield "Print the front again:", f"python -m search.front {name}"
    if members:
        yield (
            "Why a trial was stopped, or is not on the front:",
            f"python -m search.front {name} --why {members[0].number}",
        )
