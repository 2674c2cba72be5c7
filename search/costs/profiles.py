"""The members of a front under other loads than that of the search: larger batches, training, decoding.

The throughput of a network grows with the batch until the processor is busy. The batch that suffices is the smallest
one with ``ENOUGH`` of the highest throughput.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from torch import nn

from search.costs.counted import evaluating
from search.costs.energy import millijoules, packages
from search.costs.exclusive import measurement_lock
from search.costs.latency import MeasuredLatency
from search.costs.meter import Latency
from search.costs.modes import MODES
from search.costs.stored import measured_costs
from search.study.records import Record, front
from search.study.stored import StoredStudy
from spaces.architecture import brief
from spaces.build import build, task_of
from spaces.dimensions import ConfigError
from spaces.models.language_model import LanguageModel
from spaces.tasks import Task

BATCHES = (1, 4, 16, 64)
ENOUGH = 0.9  # of the highest throughput
LEFT_OUT = ("_target_", "batch", "mode", "runtimes")  # of the study's settings of the latency


class Profile(NamedTuple):
    """How fast a network is."""

    latencies: Mapping[int, Latency]  # of a forward pass, by batch
    train_step: Latency
    decode: Latency | None  # of one token; None if the network is no language model
    millijoules: float | None = None  # of a forward pass of one sequence; None where the counters cannot be read

    @property
    def throughput(self) -> dict[int, float]:
        """Sequences per second by batch."""
        return {batch: 1e3 * batch / latency.ms for batch, latency in self.latencies.items()}

    @property
    def sufficient_batch(self) -> int:
        """The smallest batch with ``ENOUGH`` of the highest throughput."""
        throughput = self.throughput
        return next(batch for batch in sorted(throughput) if throughput[batch] >= ENOUGH * max(throughput.values()))


def profile(architectures: Sequence[Mapping[str, Any]], task: Task, settings: Mapping[str, Any]) -> list[Profile]:
    """Measure networks in turns.

    Args:
        architectures: of the networks.
        task: provides the inputs.
        settings: of :class:`~search.costs.latency.MeasuredLatency`, except ``batch`` and ``mode``.
    """
    networks = [build(dict(architecture), task) for architecture in architectures]
    tasks = [task_of(architecture, task) for architecture in architectures]

    def measured(chosen: Sequence[int], **changes: Any) -> dict[int, Latency]:
        own: list[nn.Module] = [networks[at] for at in chosen]
        meter = MeasuredLatency(**{**settings, **changes})
        return dict(zip(chosen, meter.measure_all(own, [tasks[at] for at in chosen]), strict=True))

    every = range(len(networks))
    by_batch = {batch: measured(every, batch=batch) for batch in BATCHES}
    steps = measured(every, batch=task.batch_size, mode="train_step")
    decoded = measured([at for at in every if isinstance(networks[at], LanguageModel)], batch=1, mode="decode")
    counters = packages()
    return [
        Profile(
            {batch: latencies[at] for batch, latencies in by_batch.items()},
            steps[at],
            decoded.get(at),
            _millijoules(networks[at], tasks[at], counters) if counters else None,
        )
        for at in every
    ]


def _millijoules(network: nn.Module, task: Task, counters: list[Path]) -> float:
    with evaluating(network), measurement_lock():
        return millijoules(MODES["forward"](network, task, task.sample()), counters)


def profile_front(stored: StoredStudy) -> Table:
    """The table of a study's front.

    Raises:
        ConfigError: the front is empty, or the study's latencies were not measured.
    """
    task = measured_costs(stored).task
    members = front(stored.store.records(), stored.objectives)
    if not members:
        raise ConfigError("the front is empty: no trial is complete")
    latency = stored.store.identity()["latency"]
    settings = {name: value for name, value in latency.items() if name not in LEFT_OUT}
    profiles = profile([member.architecture for member in members], task, settings)
    return profile_table(members, profiles, stored.dimensions, batch_size=task.batch_size)


def profile_table(
    members: Sequence[Record], profiles: Sequence[Profile], dimensions: Collection[str], *, batch_size: int
) -> Table:
    """A row per member: latency of one sequence, throughput by batch, a training step, a decoded token."""
    table = Table(title="The front under other loads", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("ms, batch 1", justify="right")
    for batch in BATCHES:
        table.add_column(f"per s, batch {batch}", justify="right")
    table.add_column(f"batch for {ENOUGH:.0%}", justify="right")
    table.add_column(f"ms, training step of {batch_size}", justify="right")
    decodes = any(each.decode for each in profiles)
    if decodes:
        table.add_column("us a token", justify="right")
    energy = any(each.millijoules is not None for each in profiles)
    if energy:
        table.add_column("mJ, batch 1", justify="right")
    else:
        table.caption = "Energy is not shown: this machine has no counters (RAPL) that this user can read."
    table.add_column("architecture")
    for member, each in zip(members, profiles, strict=True):
        first = each.latencies[BATCHES[0]]
        row = [str(member.number), f"{first.ms:.4g} ±{first.spread:.1%}"]
        row += [f"{count:.4g}" for count in each.throughput.values()]
        row += [str(each.sufficient_batch), f"{each.train_step.ms:.4g}"]
        if decodes:
            row.append(f"{1e3 * each.decode.ms:.4g}" if each.decode else "")
        if energy:
            row.append("" if each.millijoules is None else f"{each.millijoules:.4g}")
        table.add_row(*row, brief(member.architecture, dimensions))
    return table
