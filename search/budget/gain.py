"""How fast the front of a study grows, from its records alone, so that all workers agree."""

from __future__ import annotations

from collections.abc import Sequence

from search.study.records import Objectives, Record

MIN_TRIALS = 4  # that ended, for an estimate


def in_order_of_end(records: Sequence[Record]) -> list[Record]:
    """The trials that have ended, the latest last. A trial that was resumed counts once, when it last ended."""
    return sorted((each for each in records if each.ended_at is not None), key=lambda each: each.ended_at or 0.0)


def work_s(record: Record) -> float:
    """Seconds of measuring and training."""
    return record.training_s + record.latency_s


def gain_per_hour(records: Sequence[Record], objectives: Objectives) -> float | None:
    """The growth of the hypervolume by the later half of the trials, per hour of their work; None of too few.

    It is what an hour of one worker may be expected to add at most: growth usually slows down.
    """
    ended = in_order_of_end(records)
    latest = ended[len(ended) // 2 :]
    hours = sum(map(work_s, latest)) / 3600
    if len(ended) < MIN_TRIALS or not hours:
        return None
    before = objectives.hypervolume(ended[: len(ended) - len(latest)])
    return (objectives.hypervolume(ended) - before) / hours


def describe_gain(gain: float | None) -> str:
    """The gain in short; empty if it is unknown."""
    if gain is None:
        return ""
    # The hypervolume is at most 1, so faster growth than 1 an hour is that of a study which has lasted minutes.
    return f"{gain:+.2g} an hour" if gain < 1 else f"{gain / 60:+.2g} a minute"
