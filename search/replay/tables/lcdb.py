"""LCDB: learning curves over the size of the training set, of 20 classifiers of scikit-learn on 246 data sets.

Mohr et al., "LCDB 1.0: An Extensive Learning Curves Database for Classification Tasks", 2022, from the package
``lcdb``. An epoch is a training with the next of the recorded sizes, which grow by ``sqrt(2)``, so its seconds differ
from epoch to epoch. There are no latencies: the cost, as if known before training, is the time of the last training.
A learner has no settings and no size.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from search.replay.table import Table
from search.replay.tables.grid import Grid
from search.replay.tables.packaged import data_file
from spaces.dimensions import ConfigError

# OpenML's numbers of data sets with at least 5,000 rows, of whose curves most are complete, and their classes.
CLASSES = {"6": 26, "201": 11, "554": 10, "821": 2, "846": 2, "901": 2, "1120": 2, "1235": 2, "40685": 7, "41027": 3}
NAMES = tuple(f"lcdb-{name}" for name in CLASSES)
SEEDS = 5  # pairs of an outer and an inner seed
MIN_SECONDS = 1e-4  # the resolution of the recorded seconds
Curve = dict[int, tuple[float, float]]  # seconds and validation accuracy by training size


def read(name: str) -> Table:
    """The table of a data set: the learners whose curves are complete with the ``SEEDS`` most complete pairs of seeds.

    Raises:
        ConfigError: the package is not installed or holds other data.
    """
    data_set = name.removeprefix("lcdb-")
    file = data_file(name, package="lcdb", module="lcdb", path="database-accuracy.csv")
    curves: dict[str, dict[tuple[int, int], Curve]] = defaultdict(lambda: defaultdict(dict))
    for row in _rows(file, data_set):
        try:
            seeds = int(row["outer_seed"]), int(row["inner_seed"])
            point = max(float(row["traintime"]), MIN_SECONDS), float(row["score_valid"])
            curves[row["learner"]][seeds][int(row["size_train"])] = point
        except (KeyError, TypeError, ValueError):
            continue  # a training that failed
    sizes = sorted({size for runs in curves.values() for curve in runs.values() for size in curve})
    complete = {
        learner: {seeds for seeds, curve in runs.items() if len(curve) == len(sizes)}
        for learner, runs in curves.items()
    }
    counts = Counter(seeds for every in complete.values() for seeds in every)
    worlds = sorted(counts, key=lambda seeds: (-counts[seeds], seeds))[:SEEDS]
    learners = sorted(learner for learner, every in complete.items() if every.issuperset(worlds))
    if len(worlds) < SEEDS or not learners:
        raise ConfigError(f"{name}: {file}: no table: no learner has complete curves with {SEEDS} pairs of seeds")
    grid = Grid({"learner": learners}, epochs=len(sizes))
    # The recorded seconds are those of one machine at one time, so of the worlds the median.
    seconds = [[median(curves[each][seeds][size][0] for seeds in worlds) for size in sizes] for each in learners]
    return grid.table(
        name,
        [{"learner": each} for each in learners],
        chance=1 / CLASSES[data_set],
        costs=[{"train_s": each[-1], "flops": 1.0} for each in seconds],
        curves=[[[curves[each][seeds][size][1] for size in sizes] for each in learners] for seeds in worlds],
        seconds=seconds,
        cost="train_s",
    )


def _rows(file: Path, data_set: str) -> Iterator[dict[str, str]]:
    with file.open(newline="") as opened:
        names = next(csv.reader(opened), [])
        lines = (line for line in opened if line.startswith(f"{data_set},"))
        yield from csv.DictReader(lines, fieldnames=names)
