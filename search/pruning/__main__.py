"""Time of a pruning decision: ``python -m search.pruning`` prints CPU milliseconds, with 1,000 trials of 27 epochs."""

from __future__ import annotations

import time
from statistics import mean, median

import numpy as np

from search.config import options
from search.pruning import Pruner
from search.study.history import History
from search.study.records import Objectives, Record, State
from spaces.instantiate import instantiate

EPOCHS, RUNGS, DECISIONS = 27, (3, 6, 12, 24), 10
COSTS = ("latency_ms", "parameters", "memory_mb")


def rules() -> dict[str, Pruner]:
    """Every option of ``pruner=``, constructed from its YAML, by name."""
    return {name: instantiate(Pruner, settings, "pruner") for name, settings in options("pruner").items()}


def study(size: int, *, seed: int = 0) -> list[Record]:
    """``size`` complete trials with noisy saturating learning curves; higher costs allow a higher final metric."""
    random = np.random.default_rng(seed)
    trials = []
    for number in range(size):
        scale = random.random()
        rise = (0.3 + 0.6 * scale * random.random()) * (1 - np.exp(-np.arange(1, EPOCHS + 1) / 8))
        curve = list(enumerate((rise + 0.02 * random.random(EPOCHS)).tolist(), start=1))
        costs = {name: float(scale + 0.2 * random.random()) for name in COSTS}
        trials.append(Record(number, State.COMPLETE, costs, curve, metric=curve[-1][1]))
    return trials


def main(size: int = 1000) -> None:
    """Print a line for each rule and number of costs, over several trials and epochs."""
    trials = study(size)
    for name, rule in rules().items():
        for count in range(1, len(COSTS) + 1):
            objectives = Objectives(
                "accuracy", "maximize", COSTS[:count], chance=0.0, best=1.0, ceilings=(2.0,) * count
            )
            times, history = [], History.of(trials, objectives)
            for trial in trials[:: size // DECISIONS]:
                for epoch in RUNGS:
                    running = Record(trial.number, State.RUNNING, trial.costs, trial.curve[:epoch])
                    start = time.thread_time()
                    rule.should_stop(running, history)
                    times.append(1e3 * (time.thread_time() - start))
            print(  # noqa: T201
                f"{name:12} {count} costs  median {median(times):.2f}  mean {mean(times):.2f}  max {max(times):.2f} ms"
            )


if __name__ == "__main__":
    main()
