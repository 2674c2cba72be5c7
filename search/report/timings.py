"""When latencies were measured: the speed of a machine drifts, so those of different times are not quite comparable.

At the end of a run the latencies on and near the front are measured again together, in turns; all other trials keep
the timing from when they ran. Computed latencies (``latency=flops``) do not drift.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from search.study.records import Objectives, Record, Timing


def format_time(at: float) -> str:
    """Local date and time of ``at``, seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def describe_timings(members: Sequence[Record], others: Collection[Record], objectives: Objectives) -> str:
    """When the latencies of the front and of ``others``, the trials compared with it, were measured.

    Empty if latency is not an objective or was not measured.
    """
    front = {_moment(timing) for member in members if (timing := _measured(member, objectives))}
    if not front:
        return ""
    numbers = {member.number for member in members}
    rest = [timing for other in others if other.number not in numbers and (timing := _measured(other, objectives))]
    first, last = format_time(min(at for _, at in front)), format_time(max(at for _, at in front))
    if len(front) == 1:
        text = f"latencies of the front were measured together at {first}"
        apart = [timing for timing in rest if _moment(timing) not in front]
    else:
        hosts = len({host for host, _ in front})
        where = f" on {hosts} hosts" if hosts > 1 else ""
        text = f"latencies of the front were measured at {len(front)} different times{where}, {first} to {last}"
        apart = rest
    trials = "trial" if len(apart) == 1 else "trials"
    return f"{text}; those of {len(apart)} other {trials} at other times" if apart else text


def describe_difference(record: Record, reference: Record, objectives: Objectives) -> str:
    """When the latency of ``record`` was measured relative to that of ``reference``; empty if together with it."""
    own, other = _measured(record, objectives), _measured(reference, objectives)
    if own is None or other is None or _moment(own) == _moment(other):
        return ""
    where = f" on {own.host}" if own.host != other.host else ""
    relation = "before" if own.at <= other.at else "after"
    return (
        f"latency measured{where} at {format_time(own.at)}, "
        f"{abs(own.at - other.at):.0f} s {relation} that of trial {reference.number}"
    )


def _measured(record: Record, objectives: Objectives) -> Timing | None:
    timing = record.timing
    return timing if timing and timing.reference_ms > 0 and "latency_ms" in objectives.costs else None


def _moment(timing: Timing) -> tuple[str, float]:
    """Networks that were measured together have the same host and time."""
    return timing.host, timing.at
