"""Time of a choice: ``python -m search.samplers`` prints CPU milliseconds, with 1,000 trials of 27 epochs."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from search.samplers.candidates import MAX_POOL, Candidate
from search.samplers.surrogate import SurrogateSampler
from search.study.history import History
from search.study.records import Objectives, Record, State

TRIALS, EPOCHS, CHOICES = 1000, 27, 5
DEFAULT = 32 * (MAX_POOL + 1)  # with candidates=32: the latest random ones and the neighbours
OBJECTIVES = Objectives("accuracy", "maximize", ("latency_ms",), chance=0.0, best=1.0, ceilings=(2.0,))


def architecture(random: np.random.Generator) -> dict[str, Any]:
    """A random architecture of nine dimensions."""
    choices = {"depth": range(1, 9), "width": range(64, 513, 64), "heads": (1, 2, 4), "feed_forward": (1, 2, 4)}
    model: dict[str, float] = {name: int(random.choice(values)) for name, values in choices.items()}
    pattern = [str(random.choice(["softmax", "linformer"])) for _ in range(int(model["depth"]))]
    model["dropout"] = 0.3 * random.random()
    train = {"epochs": EPOCHS, "lr": 10 ** random.uniform(-4, -2), "weight_decay": 10 ** random.uniform(-3, -1)}
    return {"model": model, "pattern": pattern, "attention": {"rank": int(random.integers(2, 65))}, "train": train}


def counted(of: dict[str, Any]) -> dict[str, float]:
    """What is known of an architecture before its latency is measured."""
    return {"flops": 1e6 * of["model"]["depth"] * of["model"]["width"]}


def study(size: int, random: np.random.Generator) -> list[Record]:
    """``size`` complete trials with saturating learning curves; higher costs allow a higher final metric."""
    trials = []
    for number in range(size):
        own = architecture(random)
        costs = counted(own)
        scale = costs["flops"] / 4.1e9
        rise = (0.3 + 0.6 * scale * random.random()) * (1 - np.exp(-np.arange(1, EPOCHS + 1) / 8))
        curve = list(enumerate(rise.tolist(), start=1))
        costs["latency_ms"] = scale + 0.2 * random.random()
        trials.append(Record(number, State.COMPLETE, costs, curve, metric=curve[-1][1], architecture=own))
    return trials


def main(trials: int = TRIALS, counts: tuple[int, ...] = (64, DEFAULT, 1024, 10_000)) -> None:
    """Print a line for each number of candidates: a choice after another trial has ended."""
    random, sampler = np.random.default_rng(0), SurrogateSampler(candidates=1)
    *records, last = study(trials + 1, random)
    drawn = [architecture(random) for _ in range(max(counts))]
    candidates = [Candidate({}, each, counted) for each in drawn]
    for count in counts:
        times, history = [], History.of(records, OBJECTIVES)
        sampler.choose(history, candidates[:count], pauses=True)  # the model is fitted, and settings are listed
        for number in range(CHOICES):
            history.add(replace(last, number=trials + number))
            start = time.thread_time()
            sampler.choose(history, candidates[:count], pauses=True)
            times.append(1e3 * (time.thread_time() - start))
        print(f"{count:6,} candidates  median {median(times):.1f}  max {max(times):.1f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
