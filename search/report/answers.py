"""A study in sentences: what was searched, what was found, and what to do next.

The same for the page of a study and for its note in MLflow.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import Any, Literal, Self

from search.report.baselines import best_baseline
from search.report.importance import Importance, describe_importance
from search.report.intervals import sample
from search.report.rows import mechanism, with_margin
from search.study.confirmations import Repetition, read_repetitions
from search.study.records import Objectives, Record, State, front
from search.study.store import TrialStore
from spaces.architecture import describe
from spaces.baselines import BaselineResult

TENTH = 0.1
MOST_WINNERS = 3  # after the first, in the short answer
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
        repetitions: further trainings of trials with fresh seeds, by number and seed.
    """

    study: str
    rows: Sequence[tuple[str, str]]
    dimensions: Collection[str]
    command: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    repetitions: Mapping[int, Mapping[int, Repetition]] = field(default_factory=dict)

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
            rows += [(name, run[name]) for name in ("budget", "machine") if run.get(name)]
            rows.append(("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())))
        command = "" if run is None else run["command"]
        repetitions = read_repetitions(store.study)
        return cls(store.study.study_name, rows, dimensions, command, data, identity["task"], repetitions)


def answers(
    records: Sequence[Record],
    objectives: Objectives,
    baselines: Sequence[BaselineResult],
    description: Description | None = None,
    importance: Importance = MappingProxyType({}),
) -> Iterator[str]:
    """What was found, in sentences: best and cheapest model, best baseline, mechanisms of the front, trials.

    Args:
        records: the study.
        objectives: the metric and the costs.
        baselines: results of the task's baselines.
        description: what was searched; None if it is unknown.
        importance: of the dimensions; empty if it is unknown.
    """
    metric, cost = objectives.metric, objectives.costs[0]
    members = front(records, objectives)
    dimensions = None if description is None else description.dimensions

    def named(member: Record) -> str:
        text = describe(member.architecture, dimensions)
        return f"trial {member.number} at {cost} {member.costs[cost]:.4g}: {text}"

    if not members:
        yield "No trial is complete yet."
        return
    best = objectives.best_of(members)
    yield f"The best {metric} is {with_test(best, objectives)}, by {named(best)}."
    if len(members) > 1:
        cheap = [member for member in members if member.costs[cost] <= TENTH * best.costs[cost]]
        chosen = cheap[-1] if cheap else members[0]
        share = chosen.costs[cost] / best.costs[cost]
        yield f"At {share:.2f} of its {cost} it is {with_test(chosen, objectives)}, by {named(chosen)}."
    if baseline := best_baseline(baselines, objectives):
        on_test = with_margin(baseline.test_metrics, objectives)
        in_brackets = f" (test {on_test})" if on_test else ""
        yield f"The best baseline, {baseline.name}, has {baseline.metrics[metric]:.4f}{in_brackets}."
    if spans := winners(members, objectives):
        listed = ", ".join(f"{name} from {_amount(cost, low)} (to {reached:.4g})" for name, low, reached in spans)
        yield f"By ascending cost the front has, with the {metric} that each reaches: {listed}."
    if important := describe_importance(importance):
        yield important
    if description is not None and (again := trained_again(members, description.repetitions, objectives)):
        yield again
    states = [record.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
    trained, whole = sum(record.epochs for record in records), sum(map(_all_epochs, records))
    yield f"Trials: {counts}. They were trained for {trained} of {whole} epochs."


def trained_again(
    members: Sequence[Record], repetitions: Mapping[int, Mapping[int, Repetition]], objectives: Objectives
) -> str:
    """The means of further trainings with their intervals; empty if there are none."""
    found = []
    for member in members:
        seeds = repetitions.get(member.number, {})
        split: Literal["test", "validation"]
        for split in ("test", "validation"):
            if (mean := sample(seeds.values(), split, objectives)) is not None:
                found.append(f"trial {member.number} {mean} on {split} ({len(mean.values)} seeds)")
                break
    return f"Trained again with fresh seeds, mean and 95% interval: {', '.join(found)}." if found else ""


def winners(members: Sequence[Record], objectives: Objectives) -> list[tuple[str, float, float]]:
    """The mechanisms along the front: name, cost from which on it wins, and the metric that it reaches there.

    Empty with several costs, or with a single member.
    """
    if len(objectives.costs) > 1 or len(members) < 2:
        return []
    groups = [list(each) for _, each in groupby(members, key=lambda each: mechanism(each.architecture))]
    return [
        (mechanism(each[0].architecture), each[0].costs[objectives.costs[0]], each[-1].metric or 0.0) for each in groups
    ]


def in_short(
    description: Description,
    records: Sequence[Record],
    objectives: Objectives,
    baselines: Sequence[BaselineResult],
) -> list[tuple[str, str]]:
    """The four answers in short: what was searched, what was found, why, and what to do next.

    The last command, which continues the study, also says what the first answer leaves out, such as the space and the
    data. A seed and a number of trials that it has are not told twice.
    """
    metric, cost, members = objectives.metric, objectives.costs[0], front(records, objectives)
    known, given = dict(description.rows), {word.partition("=")[0] for word in description.command.split()}
    count = len(known["mechanisms"].split(", "))
    searched = [known["task"], f"{count} mechanism{'s' * (count != 1)}"]
    searched += [known["budget"]] if "budget" in known and not given & {"budget", "n_trials"} else []
    searched += [f"seed {known['seed']}"] if "seed" in known and "seed" not in given else []
    hosts = sorted({member.timing.host for member in members if member.timing})
    where = known.get("machine", ", ".join(hosts))
    lines = [("Searched", ", ".join(searched) + (f"; {where}" if where else ""))]
    if members:
        best = objectives.best_of(members)
        reached = with_test(best, objectives)
        found = f"{metric} {reached} at {_amount(cost, best.costs[cost])} (#{best.number})"
        if baseline := best_baseline(baselines, objectives):
            found += f", baseline {baseline.metrics[metric]:.4f}"
        lines.append(("Found", found))
    if spans := winners(members, objectives):
        (first, low, _), *rest = spans
        others = [f", {name} {low:.3g}" for name, low, _ in rest]
        if len(others) > MOST_WINNERS:
            others[MOST_WINNERS - 1 : -1] = [", ..."]
        lines.append(("Why", f"{first} wins from {_amount(cost, low)}{''.join(others)}"))
    name = shlex.quote(description.study)
    after = [f"search.report {name}"]
    if members:
        after = [f"search.export {name} --knee --to model"]
        after += [f"search.front {name} --confirm 5 (or --why {members[0].number})"]
    if description.command:
        after += [f"continue: {description.command.removeprefix('python -m ')}"]
    lines.append(("Next", f"python -m {' · '.join(after)}"))
    return lines


def _amount(cost: str, value: float) -> str:
    return f"{value:.3g} ms" if cost == "latency_ms" else f"{cost} {value:.3g}"


def with_test(member: Record, objectives: Objectives) -> str:
    """The metric of a member of the front on validation and, if it is known, on test."""
    on_test = with_margin(member.test_metrics, objectives)
    return f"{member.metric:.4f}" + (f" (test {on_test})" if on_test else "")


def next_commands(description: Description, members: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """What to do next, with the command for it."""
    name = shlex.quote(description.study)
    if description.command:
        yield "Continue the study, with a higher n_trials or a further budget", description.command
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
