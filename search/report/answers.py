"""A study in sentences: what was searched, what was found, and what to do next.

The same for the page of a study and for its note in MLflow.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

from search.report.baselines import best_baseline
from search.report.plots import mechanism
from search.study.records import Objectives, Record, State, front
from search.study.store import TrialStore
from spaces.architecture import describe
from spaces.baselines import BaselineResult

TENTH = 0.1
DIGEST = 16  # characters of a fingerprint that are shown


@dataclass(frozen=True)
class Description:
    """What was searched.

    Attributes:
        study: name of the study.
        rows: names and values.
        dimensions: dotted names of the settings that tell architectures apart.
        command: of the latest run; empty if it is unknown.
        data: ``fingerprint`` and ``examples`` by split; empty if they are unknown.
        task: the class and the settings of the task.
    """

    study: str
    rows: Sequence[tuple[str, str]]
    dimensions: Collection[str]
    command: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, store: TrialStore, objectives: Objectives, dimensions: Collection[str]) -> Self:
        """The description of a study.

        Args:
            store: the study, created by ``search.run``.
            objectives: the metric and the costs.
            dimensions: dotted names of the dimensions of its space.
        """
        identity, run = store.identity(), store.run_start()
        better = "higher" if objectives.direction == "maximize" else "lower"
        given = {name: value for name, value in identity["task"].items() if name != "_target_" and value is not None}
        rows = [
            ("objectives", f"{objectives.metric} ({better} is better) against {', '.join(objectives.costs)}"),
            ("task", str(identity["task"]["_target_"]).rpartition(".")[2]),
            ("settings of the task", ", ".join(f"{name}={value}" for name, value in given.items()) or "the defaults"),
            ("mechanisms", ", ".join(identity["space"]["attention"])),
            ("dimensions", ", ".join(sorted(dimensions)) or "none"),
        ]
        if data := store.data():
            counts = ", ".join(f"{count} in {split}" for split, count in data["examples"].items())
            rows.insert(3, ("data", f"examples: {counts}; fingerprint {data['fingerprint'][:DIGEST]}"))
        if "seed" in identity:
            rows.append(("seed", str(identity["seed"])))
        if run is not None:
            rows.append(("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())))
        command = "" if run is None else run["command"]
        return cls(store.study.study_name, rows, dimensions, command, data, identity["task"])


def answers(
    records: Sequence[Record],
    objectives: Objectives,
    baselines: Sequence[BaselineResult],
    dimensions: Collection[str] | None,
) -> Iterator[str]:
    """What was found, in sentences: best and cheapest model, best baseline, mechanisms of the front, trials."""
    metric, cost = objectives.metric, objectives.costs[0]
    members = front(records, objectives)

    def named(member: Record) -> str:
        text = describe(member.architecture, dimensions)
        return f"trial {member.number} at {cost} {member.costs[cost]:.4g}: {text}"

    if not members:
        yield "No trial is complete yet."
        return
    best = min(members, key=lambda member: objectives.loss(member.metric or 0.0))
    yield f"The best {metric} is {with_test(best, objectives)}, by {named(best)}."
    if len(members) > 1:
        cheap = [member for member in members if member.costs[cost] <= TENTH * best.costs[cost]]
        chosen = cheap[-1] if cheap else members[0]
        share = chosen.costs[cost] / best.costs[cost]
        yield f"At {share:.2f} of its {cost} it is {with_test(chosen, objectives)}, by {named(chosen)}."
    if baseline := best_baseline(baselines, objectives):
        test = baseline.test_metrics.get(metric)
        on_test = "" if test is None else f" (test {test:.4f})"
        yield f"The best baseline, {baseline.name}, has {baseline.metrics[metric]:.4f}{on_test}."
    if spans := mechanisms_by_cost(members, objectives):
        yield f"By ascending {cost}, the front consists of: {spans}."
    states = [record.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
    trained, whole = sum(record.epochs for record in records), sum(map(_all_epochs, records))
    yield f"Trials: {counts}. They were trained for {trained} of {whole} epochs."


def mechanisms_by_cost(members: Sequence[Record], objectives: Objectives) -> str:
    """Which mechanism the front has from which cost on; empty with several costs, or a single member."""
    if len(objectives.costs) > 1 or len(members) < 2:
        return ""
    cost = objectives.costs[0]
    groups = groupby(members, key=lambda each: mechanism(each.architecture))
    return ", ".join(f"{name} from {next(each).costs[cost]:.4g}" for name, each in groups)


def in_short(
    description: Description,
    members: Sequence[Record],
    objectives: Objectives,
    baselines: Sequence[BaselineResult],
) -> list[tuple[str, str]]:
    """The four answers in a line each: what was searched, what was found, why, and what to do next."""
    metric, cost = objectives.metric, objectives.costs[0]
    known = dict(description.rows)
    searched = f"{known['task']} with {known['mechanisms']}, seed {known.get('seed', 'unknown')}"
    if description.data:
        searched += f", {sum(description.data['examples'].values()):,} examples"
    if hosts := sorted({member.timing.host for member in members if member.timing}):
        searched += f", measured on {', '.join(hosts)}"
    lines = [("Searched", searched)]
    if members:
        best = min(members, key=lambda member: objectives.loss(member.metric or 0.0))
        spread = f" ±{best.timing.spread:.1%}" if best.timing and cost == "latency_ms" else ""
        found = f"{metric} {with_test(best, objectives)} at {cost} {best.costs[cost]:.4g}{spread}, trial {best.number}"
        if baseline := best_baseline(baselines, objectives):
            found += f"; best baseline {baseline.metrics[metric]:.4f}, {baseline.name}"
        lines.append(("Found", found))
    if spans := mechanisms_by_cost(members, objectives):
        lines.append(("Why", f"by ascending {cost} the front has {spans}"))
    name = shlex.quote(description.study)
    after = [f"python -m search.front {name} --confirm 5", f"search.export {name} --knee --to model"] if members else []
    lines.append(("Next", "; ".join([*after, "more below"]) if after else f"python -m search.report {name}"))
    return lines


def with_test(member: Record, objectives: Objectives) -> str:
    """The metric of a member of the front on validation and, if it is known, on test."""
    test = member.test_metrics.get(objectives.metric)
    return f"{member.metric:.4f}" + ("" if test is None else f" (test {test:.4f})")


def next_commands(description: Description, members: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """What to do next, with the command for it."""
    name = shlex.quote(description.study)
    if description.command:
        yield "Continue the study, with more trials or time", description.command
    yield "Print the front again", f"python -m search.front {name}"
    if members:
        yield (
            "Train the front again with fresh seeds, to see what was luck",
            f"python -m search.front {name} --confirm 5",
        )
        yield "Explain a trial", f"python -m search.front {name} --why {members[0].number}"
        yield "Take a model away, here the knee of the front", f"python -m search.export {name} --knee --to model"
    yield "See all on one page", f"python -m search.report {name}"


def _all_epochs(record: Record) -> int:
    return int(record.architecture.get("train", {}).get("epochs", 0))
