"""At the end of a run: the latencies once more, side by side.

Trials are measured minutes apart, and a machine's speed drifts over minutes, by a third on a shared one. Taking turns,
all networks meet the same machine, so that the front compares what was measured under the same conditions.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

import optuna

from search.evaluate import Search
from search.study.records import Record, front
from search.study.trials import RETIMED, records
from spaces.architecture import network_key
from spaces.build import build

WITHIN = 1.5  # drift that is reckoned with: who would be on the front if it were so much faster is measured too


def retime(study: optuna.Study, search: Search) -> int:
    """Measure the front and what is near it again and store what comes out; how many networks that were.

    Nothing is done where latency is no cost, where nothing has ended since the last time, and to what was measured on
    other hosts.
    """
    everyone = records(study)
    complete = sum(record.state == "complete" for record in everyone)
    if "latency_ms" not in search.objectives.costs or study.user_attrs.get(RETIMED, {}).get("complete") == complete:
        return 0
    host = platform.node()
    near = [record for record in everyone if record.details.get("host") == host and _near(record, everyone, search)]
    networks = {network_key(record.architecture): record.architecture for record in near}
    if not networks:
        return 0
    built = [build(dict(architecture), search.task) for architecture in networks.values()]
    latencies = dict(zip(networks, search.meter.measure_all(built, search.task), strict=True))
    known = study.user_attrs.get(RETIMED, {}).get("trials", {})
    for record in everyone:
        if record.details.get("host") == host and network_key(record.architecture) in latencies:
            latency = latencies[network_key(record.architecture)]
            known[str(record.number)] = [latency.ms, latency.spread]
    study.set_user_attr(RETIMED, {"complete": complete, "trials": known})
    return len(built)


def _near(record: Record, everyone: Sequence[Record], search: Search) -> bool:
    """Whether a trial is on the front, or would be if its latency were smaller by the drift."""
    if record.state != "complete":
        return False
    faster = Record(
        number=record.number,
        state="complete",
        costs={**record.costs, "latency_ms": record.costs["latency_ms"] / WITHIN},
        metric=record.metric,
    )
    others = [other for other in everyone if other.number != record.number]
    return record.number in {member.number for member in front([faster, *others], search.objectives)}
