"""The seconds of a run that its end needs: measuring the front again, printing it and tracking."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from search.study.records import Objectives, Record, front

CLOSING_S = 4.0  # printing, and the end of a process that has imported PyTorch: up to 3 s
NEAR_FRONT = 2.0  # networks that are measured again for each one on the front
LOGS = 5.0  # the last call of tracking takes as long as this many of its calls for one trial


def remeasuring_s(records: Sequence[Record], objectives: Objectives) -> float:
    """The estimated seconds of measuring the latencies of the front again, from those of the trials' measurements."""
    measured = [each.latency_s for each in records if each.latency_s > 0]
    return NEAR_FRONT * len(front(records, objectives)) * fmean(measured) if measured else 0.0


def closing_s(tracking_s: float) -> float:
    """The estimated seconds of tracking and printing; ``tracking_s`` is the longest time of tracking one trial."""
    return CLOSING_S + LOGS * tracking_s
