"""Measure the latencies of the front again at the end of a run, all of its networks in turns.

The trials of a search are measured minutes apart, and the speed of a shared machine drifts by a third within minutes.
Networks measured in turns are measured under the same conditions, so their latencies are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from search.costs.measured import MeasuredCosts
from search.study.records import Objectives, Record, State, front
from search.study.store import TrialStore
from spaces.architecture import network_key

DRIFT = 1.5  # largest expected drift: trials that would be on the front if this much faster are measured too


def remeasure(store: TrialStore, measured: MeasuredCosts, objectives: Objectives) -> int:
    """Measure trials on or near the front again and store the timings; return the number of networks measured.

    Does nothing if latency is not an objective, or if no trial has completed since this host did so last. Trials
    measured on another host keep their timing.
    """
    if "latency_ms" not in objectives.costs:
        return 0
    records = store.records()
    complete = sum(record.state == State.COMPLETE for record in records)
    if store.complete_when_remeasured(measured.host) == complete:
        return 0
    own = [record for record in records if record.timing and record.timing.host == measured.host]
    near = [record for record in own if record.state == State.COMPLETE and near_front(record, records, objectives)]
    networks = {network_key(record.architecture) for record in near}
    if not networks:
        return 0
    same = [record for record in own if network_key(record.architecture) in networks]
    timings = measured.timings([dict(record.architecture) for record in same])
    numbers = [record.number for record in same]
    again = dict(zip(numbers, timings, strict=True))
    store.write_timings(again, objectives, host=measured.host, complete=complete)
    return len(networks)


def near_front(record: Record, records: Sequence[Record], objectives: Objectives) -> bool:
    """Whether a complete trial is on the front, or would be if its latency were lower by the factor ``DRIFT``."""
    faster = replace(record, costs={**record.costs, "latency_ms": record.costs["latency_ms"] / DRIFT})
    others = [other for other in records if other.number != record.number]
    return record.number in {member.number for member in front([faster, *others], objectives)}
