"""Rules for the whole repository: imports, file sizes and names."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for room in ("search", "spaces") for path in (ROOT / room).rglob("*.py"))
ONLY_IN = {  # a package and the files that may import it
    "hydra": {"search/config/composition.py", "search/workers/compose.py"},
    "omegaconf": {
        "search/config/__init__.py",
        "search/config/composition.py",
        "search/assemble.py",
        "search/budget/scale.py",
        "search/compress/__main__.py",
        "search/workers/compose.py",
    },
    "lightning": {"search/training/evaluation.py", "search/training/fit.py", "search/training/module.py"},
    "matplotlib": {
        "search/replay/page.py",
        "search/report/charts.py",
        "search/report/figure.py",
        "search/report/svg.py",
        "spaces/bench/page.py",
    },
    "mlflow": {
        "search/export/served.py",
        "search/tracking/client.py",
        "search/tracking/datasets.py",
        "search/tracking/mlflow.py",
        "search/tracking/registry.py",
        "search/tracking/runs.py",
        "search/tracking/system_metrics.py",
    },
    "pydantic": {"search/config/schema.py", "spaces/schema.py"},
    "onnxruntime": {"search/costs/remote_timer.py", "search/programs/program.py", "search/programs/sessions.py"},
    "rich": {
        "search/compare.py",
        "search/compress/accuracy.py",
        "search/costs/profiles.py",
        "search/confirm/command.py",
        "search/report/beside.py",
        "search/report/console.py",
        "search/report/progress.py",
        "search/report/status.py",
        "search/report/studies.py",
    },
    "fsspec": {"search/training/remote.py"},
    "grpc": {"search/study/proxy.py"},
    "sqlalchemy": {
        "search/study/bulk.py",
        "search/study/errors.py",
        "search/study/paged.py",
        "search/study/database.py",
        "search/study/postgresql.py",
        "search/study/retrying.py",
        "search/study/set_once.py",
        "search/study/storage.py",
        "search/tracking/client.py",  # for the database that MLflow creates
    },
}
LAYERS = (  # of search/, lowest first: a module imports lower layers and its own package
    ("search", "search.pareto"),
    ("search.config",),
    ("search.study",),
    ("search.budget",),
    (  # PEERS: these may import each other, without cycles
        "search.acquisition",
        "search.costs",
        "search.programs",
        "search.samplers",
        "search.pruning",
        "search.training",
        "search.report",
        "search.tracking",
        "search.replay.table",
    ),
    ("search.lifecycle", "search.validate", "search.compress"),
    ("search.evaluate",),
    ("search.worker",),
    ("search.replay", "search.assemble"),
    ("search.workers", "search.ui", "search.proxy", "search.load"),
    ("search.confirm",),
    ("search.export",),
    ("search.predict", "search.ranking"),
    ("search.run", "search.front", "search.compare", "search.tables", "search.sync"),  # commands
)
PEERS, COMMANDS = 4, len(LAYERS) - 1
USER_ATTRS = {"search/pruning/optuna_study.py"}  # besides search/study/, the files that use Optuna's user attributes
HEAVY = {"lightning", "matplotlib", "mlflow", "optuna", "sklearn", "torch"}
LIGHT_FILES = {
    "search/front.py",
    "search/report/__main__.py",
    "search/report/status.py",
    "search/run.py",
    "search/workers/compose.py",
    "search/workers/run.py",
    "spaces/architecture.py",
    "spaces/bench/__main__.py",
    "spaces/bench/implementations.py",
    "spaces/dimensions.py",
    "spaces/space.py",
}


def imports(path, *, at_the_top_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_the_top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def import_graph():
    """The imports of each module, also those inside functions, by its dotted name."""
    paths = {module_name(path): path for path in SOURCES}
    graph = {name: set() for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                graph[name].update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                graph[name].update(each if each in paths else node.module for each in full)
    return {name: imported & paths.keys() for name, imported in graph.items()}


def layer(module):
    """The layer of a module of search/ and the entry of ``LAYERS`` that it belongs to."""
    if module.endswith(".__main__"):
        return COMMANDS, module
    parts = module.split(".")
    prefixes = [".".join(parts[:size]) for size in range(len(parts), 0, -1)]
    return next((row, prefix) for prefix in prefixes for row, names in enumerate(LAYERS) if prefix in names)


def upward_imports(graph):
    """The imports inside search/ that are not from a lower layer, the same package or between peers."""
    for module, imported in graph.items():
        for target in imported if module.startswith("search") else ():
            if target.startswith("search"):
                (row, entry), (target_row, target_entry) = layer(module), layer(target)
                if target_row >= row and entry != target_entry and not target_row == row == PEERS:
                    yield f"{module} -> {target}"


def test_no_module_of_search_imports_a_higher_layer():
    graph = import_graph()
    names = [name for names in LAYERS for name in names]
    assert [name for name in names if name not in graph] == [], "in LAYERS, but no module"
    assert [name for name in graph if name.startswith("search.") and layer(name)[1] == "search"] == [], "not in LAYERS"
    assert list(upward_imports(graph)) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("search.front", "search.run"),
        ("search.tables", "search.run"),
        ("search.costs.remeasure", "search.evaluate"),
        ("search.pruning.__main__", "search.compare"),
        ("search.replay.table", "search.replay.simulation"),
        ("search.study.records", "search.report.timings"),
        ("search.worker", "search.costs.__main__"),
    ],
)
def test_an_import_of_a_higher_layer_or_a_command_is_found(module, target):
    graph = import_graph()
    graph = {**graph, module: graph[module] | {target}}
    assert list(upward_imports(graph)) == [f"{module} -> {target}"]


def test_there_are_no_import_cycles():
    graph = import_graph()
    TopologicalSorter(graph).prepare()
    graph["spaces.bench.report"].add("spaces.bench.page")  # which imports it
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


def test_user_attributes_are_used_in_the_study_package_only():
    using = {str(path.relative_to(ROOT)) for path in SOURCES if "user_attr" in path.read_text()}
    assert {path for path in using if not path.startswith("search/study/")} == USER_ATTRS


def test_search_has_at_most_a_dozen_files_at_its_top():
    assert len(list((ROOT / "search").glob("*.py"))) <= 12


def forbidden_imports(path):
    """What is wrong with the imports of a file."""
    here = str(path.relative_to(ROOT))
    packages = {module.split(".")[0] for module in imports(path)}
    if here.startswith("spaces/") and packages & {"search", "optuna"}:
        yield f"{here}: spaces must not import search or optuna"
    for package in sorted(packages & ONLY_IN.keys()):
        if here not in ONLY_IN[package]:
            yield f"{here}: {package} may be imported in {ONLY_IN[package]} only"
    if here == "search/pareto.py" and not packages <= {"numpy", *sys.stdlib_module_names}:
        yield f"{here}: it may import numpy alone"
    if here in LIGHT_FILES and {module.split(".")[0] for module in imports(path, at_the_top_only=True)} & HEAVY:
        yield f"{here}: --help and errors must not wait for heavy imports"


def test_packages_are_imported_in_the_allowed_files_only():
    assert [problem for path in SOURCES for problem in forbidden_imports(path)] == []


def test_a_file_has_at_most_250_lines():
    assert [path for path in SOURCES if len(path.read_text().splitlines()) > 250] == []


def test_the_top_level_has_no_other_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    tops = {line.split("/")[0] for line in listed.stdout.splitlines()}
    visible = {top for top in tops if not top.startswith(".")}
    texts = {"README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
    assert visible <= {"pyproject.toml", "search", "conf", "spaces", "tests", *texts}
