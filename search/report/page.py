"""A study as one HTML page that stands alone: question, answer, charts, the front's members and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2

from search.config import hide_passwords
from search.report.answers import Description, answers, next_commands, with_test
from search.report.baselines import describe_defeat
from search.report.charts import draw_curves, draw_hypervolume, draw_importance, draw_pauses
from search.report.importance import Importance, describe_importance, importance
from search.report.intervals import sample, samples
from search.report.pauses import describe_pauses, predict_paused
from search.report.picture import chart
from search.report.rows import columns, front_rows
from search.report.svg import element
from search.report.timings import describe_timings, format_time
from search.study.confirmations import read_repetitions
from search.study.records import Record, front
from search.study.stored import StoredStudy
from spaces.architecture import format_value, pattern, settings

TEMPLATE = Path(__file__).with_name("page.html")


def page(stored: StoredStudy) -> str:
    """The page of a study; what users typed is escaped."""
    store, objectives = stored.store, stored.objectives
    records, baselines = store.records(), store.baselines()
    members = front(records, objectives)
    name, shares = store.study.study_name, importance(store.study, objectives)
    description = Description.of(store, objectives, stored.dimensions)
    rows = front_rows(
        members,
        objectives,
        stored.dimensions,
        baselines=baselines,
    )
    timings = describe_timings(members, records, objectives)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=name,
        answers=list(answers(records, objectives, baselines, description, shares)),
        defeat=describe_defeat(members, baselines, objectives),
        question=[*description.rows, *_when_and_where(stored, records)],
        charts=list(_charts(stored, records, members, shares)),
        columns=columns(rows),
        rows=rows,
        notes=[f"{timings[0].upper()}{timings[1:]}."] if timings else [],
        cards=[_card(member, stored, description) for member in members],
        commands=[(f"{what}:", command) for what, command in next_commands(description, members)],
    )
    return hide_passwords(html)


def _when_and_where(stored: StoredStudy, records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    hosts = sorted({record.timing.host for record in records if record.timing})
    yield "latency measured on", ", ".join(hosts) or "no machine yet"
    if end := stored.store.run_end():
        yield "end of the latest run", f"{format_time(end[1])}: {end[0]}"


def _charts(
    stored: StoredStudy, records: Sequence[Record], members: Sequence[Record], shares: Importance
) -> Iterator[dict[str, str]]:
    """Charts with their captions."""
    objectives, name = stored.objectives, stored.store.study.study_name
    metric, cost = objectives.metric, objectives.costs[0]
    cards = {member.number: f"#trial-{member.number}" for member in members}
    repeated = samples(read_repetitions(stored.store.study), objectives)
    baselines = stored.store.baselines()
    drawn = chart(records, objectives, title=name, baselines=baselines, repeated=repeated, links=cards)
    caption = f"{metric} against {cost}: the front by mechanism in colours, dominated and stopped trials in grey."
    yield {"svg": drawn, "caption": caption}
    drawn = element(draw_curves(records, objectives), f"Learning curves of {len(records)} trials")
    yield {"svg": drawn, "caption": f"{metric} by epoch; the front in colours."}
    reached = objectives.hypervolume(members)
    drawn = element(draw_hypervolume(records, objectives), f"Hypervolume over time, up to {reached:.4f}")
    yield {"svg": drawn, "caption": f"Hypervolume over the seconds of work; it has reached {reached:.4f} of 1."}
    if predicted := predict_paused(records, objectives):
        caption = describe_pauses(predicted)
        yield {"svg": element(draw_pauses(predicted, members, objectives), caption), "caption": caption}
    if shares:
        caption = "Share of the variance of each objective that a dimension explains (fANOVA, over complete trials)."
        yield {"svg": element(draw_importance(shares), describe_importance(shares)), "caption": caption}


def _card(member: Record, stored: StoredStudy, description: Description) -> dict[str, Any]:
    """All that is known of a member."""
    objectives = stored.objectives
    rows = [(f"validation {name}", f"{value:.4f}") for name, value in member.validation_metrics.items()]
    rows += [(f"test {name}", f"{value:.4f}") for name, value in member.test_metrics.items()]
    seeds = description.repetitions.get(member.number, {}).values()
    split: Literal["validation", "test"]
    for split in ("validation", "test"):
        if (mean := sample(seeds, split, objectives)) is not None:
            rows.append((f"{split}, {len(mean.values)} fresh seeds", f"{mean} (95% interval)"))
    rows += [(name, f"{value:,.5g}") for name, value in member.costs.items()]
    if member.timing:
        if each := member.timing.runtimes_ms:
            times = ", ".join(f"{name} {ms:.4g} ms" for name, ms in sorted(each.items(), key=lambda item: item[1]))
            rows.append(("run-times", times))
        rows.append(("latency measured", f"{format_time(member.timing.at)}, spread {member.timing.spread:.1%}"))
    rows.append(("seconds of training", f"{member.training_s:.1f}"))
    rows.append(("blocks", pattern(member.architecture)))
    rows += [(name, format_value(value)) for name, value in settings(member.architecture).items()]
    cost = objectives.costs[0]
    reached = with_test(member, objectives)
    numbers = f"{objectives.metric} {reached}, {cost} {member.costs[cost]:.4g}"
    return {
        "number": member.number,
        "summary": f"Trial {member.number}: {numbers}, {pattern(member.architecture)}",
        "rows": rows,
    }
