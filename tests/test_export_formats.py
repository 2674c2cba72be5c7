"""Which mechanism can be exported to which format, and what is free: the table in search/export/README.md."""

import re
from pathlib import Path

import pytest
import yaml

from search.export.rebuild import SpecAlone
from search.programs.interface import Interface
from search.programs.program import Exporter, ExportError
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.spec import TaskSpec

ROOT = Path(__file__).parents[1]
MECHANISMS = sorted(path.stem for path in (ROOT / "conf" / "attention").glob("*.yaml"))
SPECS = {  # texts and sources of translations are padded, images are not
    "texts": TaskSpec(length=32, classes=3, per_token=False, vocabulary=11),
    "images": TaskSpec(length=32, classes=3, per_token=False, features=5),
    "translations": TaskSpec(length=32, classes=11, per_token=True, vocabulary=11, answer_length=5),
}
MODELS = ("encoder.Encoder", "seq2seq.Seq2Seq")
FORMATS = {"pt2": Exporter.write_torch, "onnx": Exporter.write_onnx}
ROWS = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "search" / "export" / "README.md").read_text(), re.MULTILINE)
TABLE = {name: [cell.strip() for cell in cells.split("|")] for name, cells in ROWS if name in MECHANISMS}


def first_choice(node):
    """A mechanism's settings with the first of the values that each dimension may take."""
    if isinstance(node, dict):
        for kind in ("choice", "int", "float"):
            if kind in node:
                return node[kind][0]
        return {name: first_choice(value) for name, value in node.items()}
    return node


@pytest.fixture(autouse=True)
def small_graphs(monkeypatch):
    """Fewer repetitions of the same operations."""
    monkeypatch.setattr("spaces.attention.entmax._Entmax.STEPS", 1)
    monkeypatch.setattr("spaces.attention.delta.CHUNK", 4)


def network(mechanism, kind):
    settings = first_choice(yaml.safe_load((ROOT / "conf" / "attention" / f"{mechanism}.yaml").read_text()))
    if "pinv_iterations" in settings[mechanism]:
        settings[mechanism]["pinv_iterations"] = 1
    translates = kind == "translations"  # the mechanism attends to the source
    model = {"_target_": f"spaces.models.{MODELS[translates]}", "depth": 1, "width": 8, "heads": 2}
    architecture = {"model": model, "pattern": [mechanism], "attention": settings, "train": {}}
    if translates:
        attention = {**settings, "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}}
        roles = {"decoder": "softmax", "cross": mechanism}
        architecture |= {"pattern": ["softmax"], "attention": attention, "roles": roles}
    return build(architecture, SpecAlone(SPECS[kind]))


def exported(mechanism, kind, folder):
    """What is free in the program of each format; none if there is no program."""
    spec = SPECS[kind]
    answers = spec.answer_length, spec.classes
    interface = Interface(spec.length, 1, kind != "images", spec.vocabulary, spec.features, False, *answers)
    try:
        exporter = Exporter(network(mechanism, kind), interface)
    except ConfigError:  # it cannot attend to another sequence
        yield from ["\N{EN DASH}"] * len(FORMATS)
        return
    for name, write in FORMATS.items():
        try:
            yield ", ".join(write(exporter, folder / f"model.{name}").free)
        except ExportError:
            yield "none"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_table_tells_what_is_free(mechanism, kind, tmp_path):
    column = len(FORMATS) * list(SPECS).index(kind)
    assert list(exported(mechanism, kind, tmp_path)) == TABLE[mechanism][column : column + len(FORMATS)]
