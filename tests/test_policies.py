"""What holds for the project as a whole: who may import whom, and that files stay small."""

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
    "matplotlib": {"search/report/figure.py"},
    "mlflow": {"search/tracking/client.py", "search/tracking/runs.py"},
    "plotly": {"search/replay/page.py", "search/report/plots.py", "spaces/bench/page.py"},
    "rich": {"search/compare.py", "search/report/console.py"},
    "sqlalchemy": {"search/study/storage.py", "search/assemble.py"},
}
HEAVY = {"lightning", "matplotlib", "mlflow", "optuna", "plotly", "sklearn", "torch"}
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
def test_imports_flow_one_way(path):
    here = str(path.relative_to(ROOT))
    modules = list(imports(path))
    packages = {module.split(".")[0] for module in modules}
    if here.startswith("spaces/"):
        assert not packages & {"search", "optuna"}, "what is searched must not know how"
    for package, allowed in ONLY_IN.items():
        assert package not in packages or here in allowed, f"{package} belongs in {allowed}"
    if here == "search/pareto.py":
        assert packages <= {"numpy", *sys.stdlib_module_names}
    if here in LIGHT_FILES:
        top = {module.split(".")[0] for module in imports(path, at_the_top_only=True)}
        assert not top & HEAVY, "help and errors must answer at once"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_stays_within_250_lines(path):
    assert len(path.read_text().splitlines()) <= 250


def test_the_top_level_is_fixed():
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    tops = {line.split("/")[0] for line in listed.stdout.splitlines()}
    visible = {top for top in tops if not top.startswith(".")}
    texts = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
    assert visible <= {"pyproject.toml", "search", "conf", "spaces", "tests", *texts}
