"""Rules for the whole repository: imports, file sizes and names."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for room in ("search", "spaces") for path in (ROOT / room).rglob("*.py"))
ONLY_IN = {  # a package and the files that may import it
    "hydra": {"search/run.py"},
    "omegaconf": {"search/config.py", "search/run.py", "search/assemble.py"},
    "lightning": {"search/training/fit.py", "search/training/module.py"},
    "mlflow": {"search/tracking/client.py", "search/tracking/runs.py"},
    "plotly": {"search/replay/page.py", "search/report/plots.py", "spaces/bench/page.py"},
    "rich": {"search/compare.py", "search/report/console.py"},
    "sqlalchemy": {"search/study/storage.py", "search/assemble.py"},
}
HEAVY = {"lightning", "mlflow", "optuna", "plotly", "sklearn", "torch"}
LIGHT_FILES = {
    "search/front.py",
    "search/run.py",
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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_are_imported_in_the_allowed_files_only(path):
    here = str(path.relative_to(ROOT))
    modules = list(imports(path))
    packages = {module.split(".")[0] for module in modules}
    if here.startswith("spaces/"):
        assert not packages & {"search", "optuna"}, "spaces must not import search or optuna"
    for package, allowed in ONLY_IN.items():
        assert package not in packages or here in allowed, f"{package} may be imported in {allowed} only"
    if here == "search/pareto.py":
        assert packages <= {"numpy", *sys.stdlib_module_names}
    if here in LIGHT_FILES:
        top = {module.split(".")[0] for module in imports(path, at_the_top_only=True)}
        assert not top & HEAVY, "--help and errors must not wait for heavy imports"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_at_most_250_lines(path):
    assert len(path.read_text().splitlines()) <= 250


def test_the_top_level_has_no_other_files():
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    tops = {line.split("/")[0] for line in listed.stdout.splitlines()}
    visible = {top for top in tops if not top.startswith(".")}
    assert visible <= {"pyproject.toml", "search", "conf", "spaces", "tests", "README.md", "CONTRIBUTING.md", "LICENSE"}
