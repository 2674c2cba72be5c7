"""At the end of a run: the latencies of the front once more, measured in turns.

Trials are measured minutes apart, and the speed of a shared machine drifts by a third within minutes. Measured in
turns, all networks meet the same conditions, so that the front compares like with like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from search.costs.measured import MeasuredCosts
from search.study.records import Objectives, Record, State, front
from search.study.store import TrialStore
from spaces.architecture import network_key

DRIFT = 1.5  # the largest drift: what would be on the front if it were so much faster is measured too


def remeasure(store: TrialStore, measured: MeasuredCosts, objectives: Objectives) -> int:
    """Measure the front and what is near it again and store the timings; how many networks that were.

    Nothing is done where latency is no objective, or where no trial has completed since the last time. Trials whose
    latency was measured on another host keep it.
    """
    if "latency_ms" not in objectives.costs:
        return 0
    records = store.records()
    complete = sum(record.state == State.COMPLETE for record in records)
    if store.complete_when_remeasured() == complete:
        return 0
    own = [record for record in records if record.timing and record.timing.host == measured.host]
    near = [record for record in own if record.state == State.COMPLETE and _near_front(record, records, objectives)]
    networks = {network_key(record.architecture): dict(record.architecture) for record in near}
    if not networks:
        return 0
    timings = dict(zip(networks, measured.timings(list(networks.values())), strict=True))
    same = {record.number: timings.get(network_key(record.architecture)) for record in own}
    store.remeasure({number: timing for number, timing in same.items() if timing}, objectives, complete=complete)
    return len(networks)


def _near_front(record: Record, records: Sequence[Record], objectives: Objectives) -> bool:
    """Whether a complete trial is on the front, or would be if its latency were smaller by the drift."""
    faster = replace(record, costs={**record.costs, "latency_ms": record.costs["latency_ms"] / DRIFT})
    others = [other for other in records if other.number != record.number]
    return record.number in {member.number for member in front([faster, *others], objectives)}
