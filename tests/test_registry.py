"""An exported folder as a registered model of MLflow, which answers raw inputs."""

import base64
import io
import json

import numpy as np
import onnx
import pandas
import pytest
from image_files import pixels
from onnx import TensorProto, helper
from PIL import Image
from test_tracking import OBJECTIVES, record

from search.export.folder import MODULES
from search.programs.inference import load
from search.tracking.mlflow import MlflowTracking
from search.tracking.registry import register
from search.ui.server import path_of
from spaces.dimensions import ConfigError

SETTINGS = {
    "class_names": ["dark", "bright"],
    "per_token": False,
    "padded": False,
    "multiple": 1,
    "least": 1,
    "free": {"onnxruntime": ["batch"]},
}
KINDS = {
    "text": {"kind": "text", "tokens": "bytes", "length": 3, "features": None, "padded": True},
    "image": {"kind": "image", "height": 2, "width": 2, "channels": 1, "patch": 2, "levels": 256, "features": 4},
}


def write_program(path, kind):
    """Logits of 0 and of the sum of the inputs, which for texts is in hundreds."""
    text = kind == "text"
    shape = ["batch", 3] if text else ["batch", 1, 4]
    inputs = [helper.make_tensor_value_info("inputs", TensorProto.INT64 if text else TensorProto.FLOAT, shape)]
    inputs += [helper.make_tensor_value_info("padding", TensorProto.BOOL, shape)] * text
    nodes = [
        helper.make_node("Cast", ["inputs"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axes"], ["sums"], keepdims=0),
        helper.make_node("Reshape", ["sums", "column"], ["total"]),
        helper.make_node("Sub", ["total", "threshold"], ["above"]),
        helper.make_node("Mul", ["above", "zero"], ["nothing"]),
        helper.make_node("Concat", ["nothing", "above"], ["logits"], axis=1),
    ]
    axes = [1] if text else [1, 2]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes),
        helper.make_tensor("column", TensorProto.INT64, [2], [-1, 1]),
        helper.make_tensor("threshold", TensorProto.FLOAT, [1], [300.0 if text else 0.0]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
    ]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "sums", inputs, logits, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def exported(tmp_path):
    """Makes a folder as of ``search.export``, with a model of one of ``KINDS``."""

    def make(kind):
        folder = tmp_path / kind
        folder.mkdir()
        write_program(folder / "model.onnx", kind)
        length = {"length": 1} if kind == "image" else {}
        (folder / "preprocessing.json").write_text(json.dumps({**SETTINGS, **length, **KINDS[kind]}))
        for module in MODULES:
            (folder / f"{module.__name__.split('.')[-1]}.py").write_bytes(open(module.__file__, "rb").read())  # noqa: PTH123, SIM115
        return folder

    return make


def encoded(values):
    """A PNG file in base64."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def code():
    from importlib.util import find_spec

    return find_spec("search.export.served").origin


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_registered_model_answers_raw_inputs(exported, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    images = [np.full((2, 2), 20, np.uint8), pixels(0, 2, 2, 1)[..., 0] // 2 + 127]
    inputs = {"text": ["a", "zzz", "aaaa"], "image": [encoded(each) for each in images]}
    client = mlflow.MlflowClient(uri)
    tracking = MlflowTracking(uri=uri)
    tracking.start("s", identity="1", objectives=OBJECTIVES, config="")
    tracking.finish([record(3)])
    (before,) = client.search_runs(["1"], "tags.trial = '3'")
    path = path_of(uri, "paretoformer", "s")
    for kind, given in inputs.items():
        folder = exported(kind)
        address = register(folder, code(), name=kind, alias="best", study="s", trial=3, uri=uri)
        assert address == f"models:/{kind}@best"
        model = mlflow.pyfunc.load_model(address)
        plain = given if kind == "text" else images
        assert model.predict(given) == load(folder).predict(plain)
        assert model.predict(pandas.DataFrame({"any name": given})) == model.predict(given)
    assert [each["label"] for each in load(folder).predict(images)] == ["dark", "bright"]
    register(folder, code(), name="image", alias="best", study="s", trial=4, uri=uri)
    assert client.get_model_version_by_alias("image", "best").version == 2
    assert path_of(uri, "paretoformer", "s") == path, "search.ui opens the study, not the exported model"
    (nested, *_) = client.search_runs(["1"], "tags.exported_trial = '4'")
    assert nested.data.tags["mlflow.parentRunId"] in path
    (trial,) = client.search_runs(["1"], "tags.trial = '3'")
    assert {client.get_model_version(name, 1).run_id for name in inputs} == {trial.info.run_id}
    assert (trial.info.status, trial.info.end_time) == (before.info.status, before.info.end_time)
    tracking.finish([record(3)])
    note = client.get_run(nested.data.tags["mlflow.parentRunId"]).data.tags["mlflow.note.content"]
    for text, address in (("text v1, trial 3", "text/versions/1"), ("image v2, trial 4", "image/versions/2")):
        assert f"[{text}](#/models/{address})" in note


@pytest.mark.filterwarnings("ignore")
def test_a_failure_of_the_registry_is_one_line_without_a_password(exported, monkeypatch):
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # ten take 100 seconds
    uri, folder = "postgresql+psycopg://me:hunter2@127.0.0.1:1/none", exported("text")
    with pytest.raises(ConfigError) as found:
        register(folder, code(), name="x", alias="best", study="s", trial=3, uri=uri)
    assert str(found.value).startswith("MLflow at postgresql+psycopg://me:***@127.0.0.1:1/none failed: ")
    assert "\n" not in str(found.value)
    assert "hunter2" not in str(found.value)
