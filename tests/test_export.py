"""The command ``search.export``: what is in the folder, that it gives the answers of the network, errors."""

import json
import re
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from text_tables import write_table
from tiny_task import FirstToken, close_opened, run_trials, tiny_search, tiny_study

from search.export.__main__ import main
from search.export.folder import new_folder
from search.export.rebuild import load_network
from search.programs.inference import load
from search.programs.interface import check_exportable
from search.study.confirmations import Repetition, write_repetition
from search.training.evaluation import evaluate_split
from spaces.batch import Batch
from spaces.dimensions import ConfigError
from spaces.tasks.multitask import Multitask
from spaces.tasks.table import Table
from spaces.tasks.tts import Tts

ROOT = Path(__file__).parents[1]
DATABASE = "paretoformer.db"
WORDS = ("good fine lovely great", "bad poor awful wrong")
ROWS = [(f"{' '.join(WORDS[at % 2].split()[at % 3 :])} number {at}", at % 2) for at in range(80)]
TREE = {
    "attention": {"softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}},
    "input": {"tokens": "words", "vocabulary": 40, "length": 8, "stride": 2},
    "model": {"_target_": "spaces.models.encoder.Encoder", "depth": 1, "width": {"choice": [4, 8]}, "heads": 2},
    "train": {"epochs": 4, "batch_size": 8, "lr": 0.03},
}
ALONE = """
import sys
sys.modules |= dict.fromkeys(["torch", "search", "spaces"])  # cannot be imported
sys.path.insert(0, sys.argv.pop(1))
import inference
sys.exit(inference.main(folder=sys.path[0]))
"""


def table_of(folder):
    return {"_target_": "spaces.tasks.table.Table", "file": str(folder / "a.csv"), "text": "review", "label": "stars"}


def reviews(folder):
    return Table(**{name: value for name, value in table_of(folder).items() if name != "_target_"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table and a database with a study of it named tiny."""
    folder = tmp_path_factory.mktemp("export")
    write_table(folder / "a.csv", ROWS)
    identity = {"space": TREE, "task": table_of(folder), "costs": ["latency_ms"], "seed": 0}
    study = tiny_study(f"sqlite:///{folder / DATABASE}", identity=identity)
    study.set_user_attr("ceilings", [1.0])
    run_trials(study, tiny_search(TREE, task=reviews(folder), checkpoints=folder), 2)
    for number, accuracy in product(range(3), (0.5, 0.7)):
        write_repetition(study, number, int(10 * accuracy), Repetition({"accuracy": accuracy}, {"accuracy": 0.6}))
    close_opened()
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    """The exported folder of a trial."""
    storage = f"sqlite:///{folder / DATABASE}"
    assert main(["tiny", "--cheapest", "--to", str(folder / "model"), "--storage", storage]) == 0
    return folder / "model"


def expected(exported, folder):
    """The test texts, and the probabilities that the network gives them."""
    task = reviews(folder).with_input(tokens="words", vocabulary=40, length=8)
    network = load_network(exported)
    with torch.no_grad():
        shares = torch.cat([network(batch).softmax(-1) for batch in task.batches("test", 1)])
    return [each.text for each in task.rows["test"]], shares.numpy()


@pytest.mark.slow
def test_the_folder_has_everything_and_the_network_is_rebuilt_from_it(exported, folder):
    names = {path.name for path in exported.iterdir()}
    assert names == {
        "README.md",
        "architecture.yaml",
        "encoders.py",
        "nearest.py",
        "decoding.py",
        "inference.py",
        "model.int8.onnx",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "preprocessing.json",
        "sessions.py",
        "tokenizer.json",
    }
    (trial,) = [line for line in (exported / "README.md").read_text().splitlines() if line.startswith("# tiny, trial")]
    task = reviews(folder).with_input(tokens="words", vocabulary=40, length=8)
    accuracy = evaluate_split(load_network(exported), task, "test")["accuracy"]
    card = (exported / "README.md").read_text()
    rows = [line for line in card.splitlines() if line.startswith(("| eager", "| torch", "| onnxruntime"))]
    assert [row.split("|")[5].strip() for row in rows[:3]] == [f"{accuracy:.4f}"] * 3, trial
    assert [row.split("|")[3].strip() for row in rows] == ["batch, length"] * 4
    *errors, int8_error = (float(row.split("|")[4]) for row in rows[1:])
    assert max(errors) < 1e-5 < int8_error
    assert "python -m search.export tiny --cheapest" in card
    margin = 12.7062 * 0.1  # of two values 0.5 and 0.7, by Student's t with one degree of freedom
    assert f"accuracy 0.6000 ±{margin:.4f} on validation and 0.6000 ±0.0000 on test" in card


def test_a_folder_appears_as_a_whole_or_not_at_all(tmp_path):
    target = tmp_path / "there" / "model"

    def fill(fails):
        with new_folder(target) as folder:
            (folder / "a").write_text("b")
            assert not target.exists() or not list(target.iterdir())
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(fails=True)
    assert list(target.parent.iterdir()) == []
    target.mkdir()  # an empty one is replaced
    fill(fails=False)
    assert list(target.parent.iterdir()) == [target]
    assert (target / "a").read_text() == "b"
    with pytest.raises(ConfigError, match="name a new or an empty folder"):
        fill(fails=False)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written: "), new_folder(tmp_path / "file" / "model"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch", "openvino"])
def test_a_program_gives_the_answers_of_the_network(exported, folder, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
        assert "| openvino | model.onnx | batch, length |" in (exported / "README.md").read_text()
    texts, shares = expected(exported, folder)
    answers = load(exported, runtime=runtime).predict(texts)
    assert [list(each["probabilities"].values()) for each in answers] == pytest.approx(shares, abs=1e-5)
    assert [each["label"] for each in answers] == [str(each) for each in shares.argmax(-1)]


@pytest.mark.slow
def test_a_program_in_8_bit_integers_multiplies_integers_and_gives_nearly_the_same_answers(exported, folder):
    texts, shares = expected(exported, folder)
    answers = load(exported, runtime="onnxruntime-int8").predict(texts)
    assert [list(each["probabilities"].values()) for each in answers] == pytest.approx(shares, abs=0.1)
    operators = {node.op_type for node in onnx.load(exported / "model.int8.onnx").graph.node}
    assert "MatMulInteger" in operators


@pytest.mark.slow
def test_the_folder_gives_the_answers_of_the_network_without_torch_and_this_package(exported, folder, tmp_path):
    texts, shares = expected(exported, folder)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    moved = exported.rename(tmp_path / "moved")
    command = [sys.executable, "-IB", "-c", ALONE, str(moved), str(tmp_path / "texts.txt"), "--json"]
    run = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    moved.rename(exported)
    assert run.returncode == 0, run.stderr
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["input"] for each in answers] == texts
    assert [list(each["probabilities"].values()) for each in answers] == pytest.approx(shares, abs=1e-4)


@pytest.mark.slow
def test_the_command_predicts_the_rows_of_a_table(exported, folder):
    command = [sys.executable, "-m", "search.predict", str(exported), str(folder / "a.csv"), "--column", "review"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    labels = [line.split("\t")[0] for line in run.stdout.splitlines()]
    assert labels == [each["label"] for each in load(exported).predict([text for text, _ in ROWS])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as unread:
        unread.stdout.close()
        assert unread.stderr.read() == ""
    refused = subprocess.run([*command[:-1], "text"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no column 'text'; it has id, review, source, stars" in refused.stderr


@pytest.mark.slow
def test_a_program_with_code_in_a_pickle_is_refused(exported, tmp_path):
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save(Harmful(), tmp_path / "harmful.pt")
    with zipfile.ZipFile(exported / "model.pt2") as given, zipfile.ZipFile(tmp_path / "model.pt2", "w") as changed:
        for name in given.namelist():
            content = (tmp_path / "harmful.pt").read_bytes() if "sample_inputs" in name else given.read(name)
            changed.writestr(name, content)
    (tmp_path / "preprocessing.json").write_bytes((exported / "preprocessing.json").read_bytes())
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        load(tmp_path, runtime="torch")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_nothing_is_overwritten(exported, folder, capsys):
    before = {path: path.read_bytes() for path in exported.iterdir()}
    assert main(["tiny", "--knee", "--to", str(exported), "--storage", f"sqlite:///{folder / DATABASE}"]) == 2
    assert "name a new or an empty folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in exported.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "choose a member of the front"),
        (["--pick", "7"], "trial 7 is not on the front"),
        (["--at-least", "1.5"], "no member of the front fits"),
    ],
)
def test_a_choice_that_nothing_fits_is_refused_before_any_work(folder, tmp_path, capsys, options, message):
    storage = f"sqlite:///{folder / DATABASE}"
    assert main(["tiny", *options, "--to", str(tmp_path / "model"), "--storage", storage]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_member_whose_weights_are_gone_is_refused(folder, tmp_path, capsys):
    hidden = (folder / "weights").rename(folder / "hidden")
    storage = f"sqlite:///{folder / DATABASE}"
    code = main(["tiny", "--cheapest", "--to", str(tmp_path / "model"), "--storage", storage])
    hidden.rename(folder / "weights")
    assert code == 2
    assert ".safetensors; worker " in capsys.readouterr().err


NOT_YET = [
    (Tts, {}, "its answers are not classes or texts"),
]


@pytest.mark.parametrize(("task", "settings", "message"), NOT_YET)
def test_tasks_that_cannot_be_exported_are_refused(task, settings, message):
    with pytest.raises(ConfigError, match=message):
        check_exportable(task(**settings))


def test_a_classifier_can_be_exported():
    check_exportable(FirstToken())


SHARED = {
    **TREE,
    "input": {},
    "model": {"_target_": "spaces.models.shared.SharedEncoder", "depth": 1, "width": 8, "heads": 2},
}


@pytest.mark.slow
def test_of_several_tasks_each_has_a_folder_with_programs_that_give_the_answers_of_the_network(tmp_path, capsys):
    storage = f"sqlite:///{tmp_path / DATABASE}"
    parts = {name: {"_target_": "tiny_task.FirstToken", "length": n} for name, n in (("short", 6), ("long", 8))}
    node = {"_target_": "spaces.tasks.multitask.Multitask", "tasks": parts}
    identity = {"space": SHARED, "task": node, "costs": ["latency_ms"], "seed": 0}
    study = tiny_study(storage, identity=identity)
    study.set_user_attr("ceilings", [1.0])
    task = Multitask(tasks={"short": FirstToken(length=6), "long": FirstToken(length=8)})
    run_trials(study, tiny_search(SHARED, task=task, checkpoints=tmp_path), 1)
    close_opened()
    target = tmp_path / "model"
    given = ["tiny", "--cheapest", "--to", str(target), "--storage", storage]
    assert main([*given, "--register", "name"]) == 2
    assert capsys.readouterr().err.startswith("--register: this study has several tasks")
    assert main(given) == 0
    assert {path.name for path in target.iterdir()} == {"architecture.yaml", "model.safetensors", "short", "long"}
    network = load_network(target)
    for name, part in task.subtasks.items():
        inputs = part.data("test").inputs
        with torch.no_grad():
            logits = network.forward_task(name, Batch(inputs, None, inputs))
        for runtime in ("onnxruntime", "torch"):
            model = load(target / name, runtime=runtime)
            assert np.stack(model.logits(inputs.numpy())) == pytest.approx(logits.numpy(), abs=1e-5)
        card = (target / name / "README.md").read_text()
        accuracy = (logits.argmax(-1) == part.data("test").labels).float().mean().item()
        rows = re.sub(r"\d\.\de-\d\d", "0.0e+00", card)
        assert f"| onnxruntime | model.onnx | batch | 0.0e+00 | {accuracy:.4f} |" in rows
        assert card.startswith(f"# tiny, trial 0: {name}\n")
    with pytest.raises(ValueError, match="a folder for each of several tasks: long, short; name one of them"):
        load(target)


def test_a_missing_run_time_is_named(tmp_path, monkeypatch):
    (tmp_path / "preprocessing.json").write_text("{}")
    with pytest.raises(ValueError, match=r"there is no model\.onnx; there is no model\.pt2"):
        load(tmp_path)
    (tmp_path / "model.onnx").touch()
    for name in (onnxruntime.__name__, "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="needs the package onnxruntime, which is not installed"):
        load(tmp_path)
