"""Seeds of the parts of a run, each derived from the run's seed and an index.

A part that is resumed or repeated then draws what an uninterrupted run would have drawn, and workers that share a study
and a seed never draw the same.
"""

from __future__ import annotations


def trial_seed(seed: int, number: int) -> int:
    """Of the sampler for one trial of a study; below 2^32, as numpy asks."""
    return (seed * 1_000_003 + number) % 2**32


def epoch_seed(seed: int, epoch: int) -> int:
    """Of dropout and of the order of examples in one epoch of a training; ``epoch`` counts from 0."""
    return seed * 10_007 + epoch


def repetition_seed(seed: int, repetition: int) -> int:
    """Of the order of examples where a small data set is repeated within an epoch, from that epoch's seed."""
    return seed + 1_000_003 * repetition


def split_seed(seed: int, split: int, splits: int) -> int:
    """Of the generated examples of one of ``splits`` splits."""
    return seed * splits + split
