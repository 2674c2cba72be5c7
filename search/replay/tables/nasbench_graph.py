"""NAS-Bench-Graph: 26,206 graph neural networks on eight data sets, and 2,021 on a ninth, each trained once.

Qin et al., "NAS-Bench-Graph: Benchmarking Graph Neural Architecture Search", 2022 (arXiv:2206.09166), from the package
``nas-bench-graph``. It has validation accuracy, latency and parameters; no learning curves, and no seconds of training:
every training counts as one second. It has no FLOPs: the number of parameters stands in for them.
"""

from __future__ import annotations

from itertools import product

from search.replay.table import Table
from search.replay.tables.grid import Grid
from search.replay.tables.packaged import load

# Inputs of the four operations: 0 is the input of the network, n the output of operation n.
LINKS = ("0000", "0001", "0011", "0012", "0013", "0111", "0112", "0122", "0123")
OPERATIONS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
CLASSES = {  # of each data set; proteins has 112 binary labels, whose metric is the area under the ROC curve
    "arxiv": 40,
    "citeseer": 6,
    "computers": 10,
    "cora": 7,
    "cs": 15,
    "photo": 8,
    "physics": 5,
    "proteins": 2,
    "pubmed": 3,
}
NAMES = tuple(f"nbgraph-{name}" for name in CLASSES)


def read(name: str) -> Table:
    """The table of a data set.

    A key has the digits link, operation 1, ..., operation 4, each an index. Of isomorphic networks the package has
    one; the others are its aliases. A network of four skip connections is in no table.

    Raises:
        ConfigError: the package is not installed or holds other data.
    """
    data_set = name.removeprefix("nbgraph-")
    path = f"light/{data_set}.bench"
    entries = load(name, package="nas-bench-graph", module="nas_bench_graph", path=path)
    from nas_bench_graph.architecture import Arch

    used = sorted({int(digit) for key in entries for digit in f"{key:05d}"[1:]})
    grid = Grid({"link": LINKS} | {f"op{place}": [OPERATIONS[index] for index in used] for place in range(1, 5)})
    rows = {key: row for row, key in enumerate(sorted(entries))}
    settings = [dict[str, str]() for _ in rows]
    aliases = []
    for link, indices in product(LINKS, product(used, repeat=4)):
        names = [OPERATIONS[index] for index in indices]
        values = {"link": link} | {f"op{place}": each for place, each in enumerate(names, start=1)}
        key = Arch([int(digit) for digit in link], names).valid_hash()
        if key == int("".join(map(str, (LINKS.index(link), *indices)))) and key in rows:
            settings[rows[key]] = values
        elif key in rows:
            aliases.append((grid.architecture(values), rows[key]))
    found = [entries[key] for key in rows]
    return grid.table(
        name,
        settings,
        metric="auroc" if data_set == "proteins" else "accuracy",
        chance=1 / CLASSES[data_set],
        costs=[
            {
                "latency_ms": 1e3 * float(row["latency"]),
                "parameters": 1e6 * float(row["para"]),
                "flops": 1e6 * float(row["para"]),
            }
            for row in found
        ],
        curves=[[[float(row["valid_perf"])] for row in found]],
        seconds=[1.0] * len(found),
        aliases=aliases,
    )
